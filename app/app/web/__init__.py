"""HTTP: middleware, keys, uploads, languages; the JSON API and the pages."""
