def run_repair(context, chosen, orders, batches):
    return {}, "none"
