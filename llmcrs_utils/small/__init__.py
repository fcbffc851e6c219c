"""Small models of the published architectures, pretrained on the corpus's text, for use without published weights."""
