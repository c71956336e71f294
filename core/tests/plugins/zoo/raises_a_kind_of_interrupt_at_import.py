class Interrupt(KeyboardInterrupt):
    pass


raise Interrupt("pretends to be the user")
