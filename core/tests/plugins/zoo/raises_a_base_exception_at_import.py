class Outcome(BaseException):
    pass


raise Outcome("not even an Exception")
