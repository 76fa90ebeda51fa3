"""Stand-in for transformers: LMCache imports the name and the interop tests never load a tokenizer."""


class AutoTokenizer:
    """Never instantiated."""
