"""The protocol core: bytes in, decisions out. No I/O, no clock, no randomness; all of that comes in as arguments.

The ceremony in order, with the file that knows each step (CTAP 2.3 §11.5.1, "hybrid transports"):

1. The client shows a QR code (`qr`): its public key, a 16-byte secret, what it is about to ask.
2. The phone scans it, derives the tunnel ID from the secret (`keys`) and opens a tunnel at its vendor's relay
   (`tunnel`), which answers with a routing ID.
3. The phone broadcasts 20 bytes over Bluetooth (`eid`): a nonce, the routing ID and the relay's number, sealed with a
   key from the secret. Whoever hears them is near: that is the whole proof of nearness.
4. The client opens the advert by trial, learns where to meet, and joins the tunnel.
5. Both run a Noise handshake (`noise`, set up by `handshake`), keyed with the secret *and* the advert: a client that
   did not hear the phone cannot complete it.
6. The phone introduces itself in the first encrypted message (`ctap`), and may hand over linking information
   (`linking`) in an update, at any time from then on.
7. The client sends one CTAP request, the phone answers, the client says that it is done (`frames`), and both close.

A linked phone needs no code: the client asks the relay to wake it (`contact`), the phone joins and advertises, and the
rest is the same from step 4 on, with the link's secret in place of the code's.

`client` and `authenticator` hold one state machine each: transitions in a table, facts in, wishes out. The drivers
outside carry the wishes out.
"""
