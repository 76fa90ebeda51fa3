"""Stand-in for the part of vLLM that LMCache's token database uses: prefix-caching hashes and the root of the chain.

Only on the path of workers that a test starts with `vllm=True`.
"""
