"""The website: everything that a relying party has to do, and nothing about how the phone was reached."""
