"""Time measured on a device, and the model that predicts a whole child from it."""
