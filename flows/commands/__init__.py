"""Commands of `atomsets`, one a module."""
