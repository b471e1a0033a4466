"""Tuneoff: which way of fine-tuning should you use, what does it cost, and is the difference real?"""

__version__ = "0.1.0"
