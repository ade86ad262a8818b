"""What a plan will need before it runs - rows, calls, tokens, money, time, memory, disk - and how far off that was.

`predict.predict` goes through a plan's steps; each figure says whether it was counted, learnt from earlier steps of
this project, or guessed. Nothing here calls a service, and no held row is read.
"""
