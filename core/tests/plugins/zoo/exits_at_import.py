import sys

sys.exit("this plugin thinks it is a script")
