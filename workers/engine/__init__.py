"""The engine seam and the engines behind it; only ``vllm_engine`` imports vllm."""
