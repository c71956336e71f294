"""Publishing on the hub: upload, model card, push."""
