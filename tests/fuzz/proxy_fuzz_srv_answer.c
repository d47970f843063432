/* A name server's answer: whatever it is, targets are host names, in order. */
#include <assert.h>
#include <string.h>

#include "proxy/srv_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct srv_answer answer;
    if (!srv_answer_read(bytes_of(data, size), &answer))
        return 0;
    assert(answer.count <= SRV_TARGETS_MAX);
    for (size_t i = 0; i < answer.count; i++) {
        const struct srv_target *target = &answer.targets[i];
        assert(target->host[0] != '\0' && strlen(target->host) < sizeof target->host && target->port != 0);
        assert(i == 0 || target[-1].priority <= target->priority);
    }
    return 0;
}
