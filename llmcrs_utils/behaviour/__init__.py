"""What shoppers did, as models read it: item vectors from co-occurrence and the self-attentive encoder of histories."""
