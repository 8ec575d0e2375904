"""A trained model behind HTTP: an API and a page, with every limit enforced before an image is decoded."""
