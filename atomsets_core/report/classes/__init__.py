"""What the report of a campaign says where labels are classes, and a probability is predicted."""
