"""Small backbones of the published architectures, pretrained on the corpus's own text where no published weights are at hand."""
