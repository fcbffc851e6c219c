"""Small models of the published architectures, trained on the corpus's own text where no published weights are at hand."""
