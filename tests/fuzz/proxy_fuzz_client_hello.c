/* The extensions of a ClientHello that the proxy reads itself: the first octet says which. */
#include "proxy/client_hello.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_choice(const struct client_hello *hello)
{
    const struct certificate chains[] = {{.key = {.type = KEY_TYPE_RSA}}, {.key = {.type = KEY_TYPE_P384}}};
    const struct certificate *const found[] = {&chains[0], &chains[1]};
    const struct certificate *chosen[CERTIFICATES_PER_NAME];
    for (int tls13 = 0; tls13 < 2; tls13++) {
        size_t count = client_hello_choose(hello, tls13 != 0, found, 2, chosen);
        assert(count >= 1 && count <= 2);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *ours[] = {"h2", "http/1.1"};
    struct client_hello hello = {0};
    if (size == 0)
        return 0;
    struct bytes extension = bytes_of(data + 1, size - 1);
    switch (data[0] % 4) {
    case 0:
        client_hello_read_sni(&hello, extension);
        assert(hello.sni_size <= sizeof hello.sni);
        assert(memchr(hello.sni, '\0', hello.sni_size) == NULL);
        break;
    case 1:
        client_hello_read_schemes(&hello, extension);
        break;
    case 2:
        client_hello_read_groups(&hello, extension);
        break;
    default: {
        const char *chosen = client_hello_protocol(extension, ours, 2, "h2");
        assert(chosen == NULL || strcmp(chosen, "http/1.1") == 0);
    }
    }
    check_choice(&hello);
    return 0;
}
