"""How do I test that people can sign in to my website with the passkey on their phone?"""
