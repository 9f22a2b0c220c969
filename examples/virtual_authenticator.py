"""How do I test my website's passkeys without owning one? With a virtual authenticator for python-fido2."""

from __future__ import annotations

from fido2.client import DefaultClientDataCollector, Fido2Client
from fido2.server import Fido2Server
from fido2.webauthn import PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity

from hybrid.fido2_bridge import SoftwareCtapDevice


def main() -> None:
    server = Fido2Server(PublicKeyCredentialRpEntity(id="example.com", name="An example"))
    with SoftwareCtapDevice(pin="1234") as device:
        client = Fido2Client(device, DefaultClientDataCollector("https://example.com"), device.interaction)

        ann = PublicKeyCredentialUserEntity(id=b"1", name="ann", display_name="Ann")
        creation, state = server.register_begin(ann)
        made = server.register_complete(state, client.make_credential(creation["publicKey"]))
        assert made.credential_data is not None

        request, state = server.authenticate_begin([made.credential_data])
        answer = client.get_assertion(request["publicKey"]).get_response(0)
        used = server.authenticate_complete(state, [made.credential_data], answer)
    print(f"signed in with passkey {used.credential_id.hex()}")


if __name__ == "__main__":
    main()
