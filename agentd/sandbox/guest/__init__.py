"""What runs inside a sandbox: the language that a plugin is written in, and the call of one of its functions.

Stands on the standard library and RestrictedPython alone and imports nothing of agentd: the child of an executor finds
it as `guest`, tests find it as `agentd.sandbox.guest`. So its modules import each other relatively, here alone.
"""
