"""Commands of `atomsets`, each in a module of its own."""
