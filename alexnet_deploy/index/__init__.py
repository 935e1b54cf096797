"""A searchable index of photographs, stored as a crash-safe directory.

    manifest.json     immutable: format and vector space; its rename creates the index
    ledger.sqlite     every photograph, failures included, and where its vector is; its commit is
                      the only commit point
    vectors/00000.f16 segments of float16 rows, appended and synced before the ledger names them
    lock              held by the only writer; readers need none

Bytes of a segment beyond what the ledger has committed are ignored and overwritten.
"""
