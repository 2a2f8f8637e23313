"""Answers that rest on passages: asked, selected, told to a model, checked, quoted, cited."""
