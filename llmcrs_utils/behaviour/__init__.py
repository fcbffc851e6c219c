"""What shoppers did, encoded for models: item vectors from co-occurrence, and the self-attentive encoder of a shopper's history."""
