"""Models of shoppers' behaviour: item vectors from co-occurrence, and the self-attentive encoder of histories."""
