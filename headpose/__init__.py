"""Head-pose networks: the model, its loss, its data, its training and its evaluation."""
