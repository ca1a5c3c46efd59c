"""The payloads inside the envelopes, and the plain replies (docs/protocol.md gives each field).

Directive: server to device, signed by the director key. Check-in and enrol: device to server,
signed by the device key. Parsing proves the form only; who signed it is `dsse`'s to prove.
"""
