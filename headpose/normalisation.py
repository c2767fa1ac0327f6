"""What networks see of a picture: pixels scaled to [0, 1], then normalised as most published
weights expect it. Means and standard deviations of ImageNet, as torchvision states them."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
