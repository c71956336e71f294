"""Real subblocks as calls that can be measured on a device, and the model that predicts a whole child from them."""
