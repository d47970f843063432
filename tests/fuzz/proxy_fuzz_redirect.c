/* redirect_to_https: a request's head, and the URL that is made of it. */
#include <assert.h>
#include <string.h>

#include "proxy/redirect_location.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever was asked for, the URL is one of HTTPS in one line of printable ASCII. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char location[REDIRECT_LOCATION_SIZE];
    struct http_request request =
        http_request_parse(bytes_of(data, size < REDIRECT_HEAD_MAX ? size : REDIRECT_HEAD_MAX));
    if (!redirect_location(&request, 8443, location))
        return 0;
    assert(strncmp(location, "https://", 8) == 0 && strstr(location, ":8443/") != NULL);
    for (const char *at = location; *at != '\0'; at++)
        assert(*at > ' ' && *at < 0x7f);
    assert(strcspn(location + 8, "/@\\") >= strlen(":8443"));
    return 0;
}
