"""How many engines share a GPU is measured, once: a short load on one engine, on two, and so on."""
