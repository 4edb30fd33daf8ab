"""The page: its routes, view models and the rendering of templates."""
