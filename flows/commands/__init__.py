"""Commands of `atomsets`, one a module; `flows.cli` registers them."""
