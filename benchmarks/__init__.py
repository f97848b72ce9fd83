"""How fast is the engine, against stock TRL on the same machine in the same run?"""
