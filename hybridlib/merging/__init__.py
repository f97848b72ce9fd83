"""Merging LoRA adapters on their dense deltas, and the geometry of weight updates.

`merge` reads, combines and writes adapters by a method of `operators.OPERATORS`, `geometry`
compares updates with each other and with their base, `interference` measures two adapters in one
model; of these, names that begin with an underscore may not be imported from outside. It is our own
code because PEFT's merges combine the factors A and B separately, which is wrong by about 100 % for
two random rank-8 adapters, and no library scores an update against its null distribution.

All of it computes with torch, so this file imports nothing and hands no names on.
"""
