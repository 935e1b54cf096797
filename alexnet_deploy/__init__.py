"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), from checkpoint to labels and vectors."""

__version__ = "0.1.0"
