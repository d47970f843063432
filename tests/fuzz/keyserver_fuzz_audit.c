/* What the signer tells the auditor, and what the secret of ticket keys holds: whatever parses is written
 * again to the same octets. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "keyserver/audit_record.h"
#include "keyserver/ticket_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_record(struct bytes body)
{
    struct audit_record record;
    uint8_t octets[AUDIT_MESSAGE_MAX];
    struct writer to = writer_of(octets, sizeof octets);
    if (!audit_record_parse(body, &record))
        return;
    audit_record_write(&to, &record);
    if (!writer_ok(&to) || to.size != 4 + body.size || memcmp(octets + 4, body.data, body.size) != 0)
        abort();
}

static void check_state(struct bytes octets)
{
    struct ticket_state state;
    bool parsed = ticket_state_parse(octets, &state, NULL) == RESULT_OK;
    if (parsed && octets.size != TICKET_CHAIN_SIZE) {
        uint8_t *again = malloc(octets.size);
        struct writer to = writer_of(again, octets.size);
        /* The chain may have come from one of two records; what is behind them is as it was. */
        if (again == NULL || ticket_state_size(&state) != octets.size || !ticket_state_write(&to, &state) ||
            memcmp(again + 2 * TICKET_CHAIN_RECORD_SIZE, octets.data + 2 * TICKET_CHAIN_RECORD_SIZE,
                   octets.size - 2 * TICKET_CHAIN_RECORD_SIZE) != 0)
            abort();
        free(again);
    }
    ticket_state_clear(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_record(bytes_of(data, size));
    check_state(bytes_of(data, size));
    return 0;
}
