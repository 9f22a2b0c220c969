"""Behind the scenes of the website: a software phone, a relay, a laptop for browsers that have no Bluetooth.

A real website has none of this. Whoever reaches these routes commands the phone, so they are for this machine only.
"""
