// The theme's search dialog has no name of its own for screen readers.
for (const dialog of document.querySelectorAll('.md-search[role="dialog"]')) dialog.setAttribute("aria-label", "Search");
