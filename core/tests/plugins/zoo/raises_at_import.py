raise RuntimeError("the wheel was built for another platform")
