class Descripter:
    pass
