"""Every kernel three times under one name and signature: plain, C++ and Triton."""
