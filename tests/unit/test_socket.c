/* Sockets: listening (stale and live Unix files), accepting at the limits, messages with descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/socket.h"

#define DEADLINE 10000 /* milliseconds */

static const struct socket_listen_options OPTIONS = {.backlog = 16};

static void wait_for(int fd, short events)
{
    struct pollfd ask = {.fd = fd, .events = events};
    assert_int_equal(poll(&ask, 1, DEADLINE), 1);
}

static struct address parsed(const char *text)
{
    struct address address;
    assert_int_equal(address_parse(text, &address, NULL), RESULT_OK);
    return address;
}

static struct address local_address(int fd)
{
    struct address address = {.size = sizeof address.storage};
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address.storage, &address.size), 0);
    return address;
}

static int flag(int fd, int level, int option)
{
    int value = -1;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, level, option, &value, &size), 0);
    return value;
}

static void assert_flags(int fd)
{
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static int listen_on(const struct address *address)
{
    struct failure why = {0};
    int fd = -1;
    if (socket_listen(address, &OPTIONS, &fd, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    assert_flags(fd);
    return fd;
}

static int accept_one(int listener, struct address *peer)
{
    struct failure why = {0};
    int fd = -1;
    wait_for(listener, POLLIN);
    assert_int_equal(socket_accept(listener, &fd, peer, &why), RESULT_OK);
    assert_flags(fd);
    return fd;
}

/* ---- A directory for Unix sockets */

struct directory {
    char path[32];
    char text[64]; /* "unix:PATH/s" */
    struct address address;
};

static int make_directory(void **state)
{
    struct directory *directory = calloc(1, sizeof *directory);
    (void)snprintf(directory->path, sizeof directory->path, "/tmp/test_socket.XXXXXX");
    if (mkdtemp(directory->path) == NULL)
        return -1;
    (void)snprintf(directory->text, sizeof directory->text, "unix:%s/s", directory->path);
    directory->address = parsed(directory->text);
    *state = directory;
    return 0;
}

static int remove_directory(void **state)
{
    struct directory *directory = *state;
    (void)unlink(directory->text + strlen("unix:"));
    int result = rmdir(directory->path);
    free(directory);
    return result;
}

/* ---- TCP */

static void check_tcp(const char *text)
{
    struct failure why = {0};
    struct address wanted = parsed(text);
    struct address peer;
    int client = -1;
    int listener = listen_on(&wanted);
    struct address bound = local_address(listener);
    if (wanted.storage.ss_family == AF_INET6)
        assert_int_equal(flag(listener, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    assert_int_equal(flag(listener, SOL_SOCKET, SO_REUSEPORT), 0);

    assert_int_equal(socket_connect(&bound, &client, &why), RESULT_OK);
    assert_flags(client);
    int server = accept_one(listener, &peer);
    wait_for(client, POLLOUT);
    assert_int_equal(socket_error(client), 0);
    struct address from = local_address(client);
    assert_true(address_equal(&from, &peer));
    assert_int_equal(flag(client, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(flag(server, IPPROTO_TCP, TCP_NODELAY), 1);

    int none = 0;
    assert_int_equal(socket_accept(listener, &none, &peer, &why), RESULT_AGAIN);
    assert_int_equal(none, -1);
    assert_int_equal(peer.size, 0);
    socket_close(&server);
    socket_close(&client);
    socket_close(&listener);
    assert_int_equal(listener, -1);
}

static void test_tcp(void **state)
{
    (void)state;
    check_tcp("127.0.0.1:0");
}

/* Containers are often without an IPv6 loopback: then there is nothing to test. */
static void test_tcp6(void **state)
{
    (void)state;
    struct address loopback = parsed("[::1]:0");
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool there = bind(probe, (const struct sockaddr *)&loopback.storage, loopback.size) == 0;
    socket_close(&probe);
    if (!there)
        skip();
    check_tcp("[::1]:0");
}

static void test_connect_refused(void **state)
{
    (void)state;
    struct failure why = {0};
    struct address wanted = parsed("127.0.0.1:0");
    int listener = listen_on(&wanted);
    struct address bound = local_address(listener);
    socket_close(&listener);
    int client = -1;
    enum result result = socket_connect(&bound, &client, &why);
    if (result == RESULT_OK) {
        wait_for(client, POLLOUT);
        assert_int_equal(socket_error(client), ECONNREFUSED);
        assert_int_equal(socket_error(client), 0);
        socket_close(&client);
    } else {
        assert_int_equal(result, RESULT_PEER);
    }
}

static void test_reuse_port(void **state)
{
    (void)state;
    struct failure why = {0};
    struct socket_listen_options shared = {.backlog = 16, .reuse_port = true};
    struct address wanted = parsed("127.0.0.1:0");
    int first = -1;
    int second = -1;
    assert_int_equal(socket_listen(&wanted, &shared, &first, &why), RESULT_OK);
    struct address bound = local_address(first);
    assert_int_equal(socket_listen(&bound, &shared, &second, &why), RESULT_OK);

    int third = 0;
    assert_int_equal(socket_listen(&bound, &OPTIONS, &third, &why), RESULT_SYSTEM);
    assert_int_equal(third, -1);
    char text[ADDRESS_TEXT_SIZE];
    char expected[256];
    (void)snprintf(expected, sizeof expected, "cannot bind %s: Address already in use",
                   address_format(&bound, text));
    assert_string_equal(why.text, expected);
    socket_close(&first);
    socket_close(&second);
}

/* ---- Unix sockets */

static void test_unix(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    struct address peer;
    int client = -1;
    int listener = listen_on(&directory->address);
    struct stat status;
    assert_int_equal(stat(directory->text + strlen("unix:"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0660);
    assert_int_equal(socket_connect(&directory->address, &client, &why), RESULT_OK);
    int server = accept_one(listener, &peer);
    assert_true(address_is_unix(&peer));
    assert_int_equal(write(client, "x", 1), 1);
    wait_for(server, POLLIN);
    socket_close(&client);
    socket_close(&server);
    socket_close(&listener);
}

static void test_unix_mode(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    struct socket_listen_options options = {.backlog = 16, .unix_mode = 0606};
    struct stat status;
    int listener = -1;
    assert_int_equal(socket_listen(&directory->address, &options, &listener, &why), RESULT_OK);
    assert_int_equal(stat(directory->text + strlen("unix:"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0606);
    socket_close(&listener);
}

static void test_unix_stale_file_is_replaced(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    int listener = listen_on(&directory->address);
    socket_close(&listener); /* the file stays */
    int client = -1;
    assert_int_equal(socket_connect(&directory->address, &client, &why), RESULT_PEER);
    assert_int_equal(client, -1);

    listener = listen_on(&directory->address);
    assert_int_equal(socket_connect(&directory->address, &client, &why), RESULT_OK);
    socket_close(&client);
    socket_close(&listener);
}

static void test_unix_live_file_is_left_alone(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    struct address peer;
    int listener = listen_on(&directory->address);
    int second = 0;
    assert_int_equal(socket_listen(&directory->address, &OPTIONS, &second, &why), RESULT_SYSTEM);
    assert_int_equal(second, -1);
    assert_non_null(strstr(why.text, "another process listens there"));
    assert_non_null(strstr(why.text, directory->text));

    /* The probe came and went; the listener still works. */
    int probe = accept_one(listener, &peer);
    int client = -1;
    assert_int_equal(socket_connect(&directory->address, &client, &why), RESULT_OK);
    int server = accept_one(listener, &peer);
    socket_close(&probe);
    socket_close(&client);
    socket_close(&server);
    socket_close(&listener);
}

/* A listener too busy to take a probe is live all the same. */
static void test_unix_full_backlog_is_live(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    struct socket_listen_options options = {.backlog = 0};
    int listener = -1;
    int clients[8];
    size_t count = 0;
    assert_int_equal(socket_listen(&directory->address, &options, &listener, &why), RESULT_OK);
    while (count < 8 && socket_connect(&directory->address, &clients[count], &why) == RESULT_OK)
        count++;
    assert_in_range(count, 1, 7);
    assert_int_equal(why.kind, RESULT_PEER);

    int second = 0;
    assert_int_equal(socket_listen(&directory->address, &OPTIONS, &second, &why), RESULT_SYSTEM);
    assert_non_null(strstr(why.text, "another process listens there"));
    while (count > 0)
        socket_close(&clients[--count]);
    socket_close(&listener);
}

static void test_unix_other_file_is_left_alone(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    int file = open(directory->text + strlen("unix:"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, "keep", 4), 4);
    int fd = 0;
    assert_int_equal(socket_listen(&directory->address, &OPTIONS, &fd, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "a file that is no socket is there"));
    struct stat status;
    assert_int_equal(stat(directory->text + strlen("unix:"), &status), 0);
    assert_int_equal(status.st_size, 4);
    socket_close(&file);
}

static void test_unix_missing(void **state)
{
    struct directory *directory = *state;
    struct failure why = {0};
    int fd = 0;
    assert_int_equal(socket_connect(&directory->address, &fd, &why), RESULT_PEER);
    assert_non_null(strstr(why.text, "No such file or directory"));
    struct address nowhere = parsed("unix:/no/such/directory/s");
    assert_int_equal(socket_listen(&nowhere, &OPTIONS, &fd, &why), RESULT_SYSTEM);
    assert_string_equal(why.text, "cannot bind unix:/no/such/directory/s: No such file or directory");
    assert_int_equal(fd, -1);
}

/* ---- Limits */

/* No further descriptor can be opened until the limit is put back. */
static struct rlimit no_descriptors(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    return limit;
}

static void test_out_of_descriptors(void **state)
{
    (void)state;
    struct failure why = {0};
    struct address wanted = parsed("127.0.0.1:0");
    struct address peer;
    int listener = listen_on(&wanted);
    struct address bound = local_address(listener);
    int client = -1;
    assert_int_equal(socket_connect(&bound, &client, &why), RESULT_OK);
    wait_for(client, POLLOUT);

    int fds[3] = {0, 0, 0};
    struct failure whys[4] = {{0}};
    struct rlimit limit = no_descriptors();
    enum result accepted = socket_accept(listener, &fds[0], &peer, &whys[0]);
    enum result connected = socket_connect(&bound, &fds[1], &whys[1]);
    enum result listened = socket_listen(&wanted, &OPTIONS, &fds[2], &whys[2]);
    int pair[2] = {0, 0};
    enum result paired = socket_pair(SOCK_STREAM, pair, &whys[3]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);

    assert_int_equal(accepted, RESULT_LIMIT);
    assert_int_equal(connected, RESULT_LIMIT);
    assert_int_equal(listened, RESULT_LIMIT);
    assert_int_equal(paired, RESULT_LIMIT);
    for (size_t i = 0; i < 4; i++)
        assert_non_null(strstr(whys[i].text, "Too many open files"));
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(fds[i], -1);

    /* The connection was not lost: it is still queued. */
    int server = accept_one(listener, &peer);
    socket_close(&server);
    socket_close(&client);
    socket_close(&listener);
}

static void test_accept_on_what_does_not_listen(void **state)
{
    (void)state;
    struct failure why = {0};
    struct address peer;
    int pair[2];
    int fd = 0;
    assert_int_equal(socket_pair(SOCK_STREAM, pair, &why), RESULT_OK);
    assert_int_equal(socket_accept(pair[0], &fd, &peer, &why), RESULT_SYSTEM);
    socket_close(&pair[0]);
    socket_close(&pair[1]);
    assert_int_equal(socket_accept(-1, &fd, &peer, &why), RESULT_SYSTEM);
    assert_non_null(strstr(why.text, "Bad file descriptor"));
}

/* ---- Messages */

struct pair {
    int ends[2];
};

static int make_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    struct failure why = {0};
    if (socket_pair(SOCK_SEQPACKET, pair->ends, &why) != RESULT_OK)
        return -1;
    assert_flags(pair->ends[0]);
    assert_flags(pair->ends[1]);
    *state = pair;
    return 0;
}

static int close_pair(void **state)
{
    struct pair *pair = *state;
    socket_close(&pair->ends[0]);
    socket_close(&pair->ends[1]);
    free(pair);
    return 0;
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_message(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[4096];
    size_t size = sizeof data;
    int descriptor = 0;
    assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_AGAIN);
    assert_int_equal(descriptor, -1);

    static const size_t SIZES[] = {1, 2, 4095, 4096};
    char sent[4096];
    memset(sent, 'm', sizeof sent);
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        assert_int_equal(socket_send_message(pair->ends[0], sent, SIZES[i], -1, &why), RESULT_OK);
        assert_int_equal(socket_send_message(pair->ends[0], "next", 4, -1, &why), RESULT_OK);
        size = sizeof data;
        assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_OK);
        assert_int_equal(size, SIZES[i]);
        assert_memory_equal(data, sent, size);
        assert_int_equal(descriptor, -1);
        size = sizeof data;
        assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_OK);
        assert_int_equal(size, 4);
    }
}

static void test_message_bounds(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[4097] = {0};
    assert_int_equal(socket_send_message(pair->ends[0], data, 0, -1, &why), RESULT_LIMIT);
    assert_int_equal(socket_send_message(pair->ends[0], data, 4097, -1, &why), RESULT_LIMIT);
    assert_string_equal(why.text, "a message of 4097 octets: 1 to 4096 can be sent");
}

static void test_message_descriptor(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[64];
    size_t size = sizeof data;
    int descriptor = -1;
    int channel[2];
    unsigned before = open_descriptors();
    assert_int_equal(pipe2(channel, O_CLOEXEC), 0);
    assert_int_equal(socket_send_message(pair->ends[0], "pipe", 4, channel[1], &why), RESULT_OK);
    socket_close(&channel[1]);
    assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_OK);
    assert_int_equal(size, 4);
    assert_memory_equal(data, "pipe", 4);
    assert_true(fcntl(descriptor, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(write(descriptor, "through", 7), 7);
    assert_int_equal(read(channel[0], data, sizeof data), 7);
    assert_memory_equal(data, "through", 7);
    socket_close(&descriptor);
    socket_close(&channel[0]);
    assert_int_equal(open_descriptors(), before);
}

/* What one of our own processes never sends: the descriptors must not stay open here. */
static void test_message_with_two_descriptors(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    int both[2] = {0, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof both)];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {.iov_base = "two", .iov_len = 3};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof both);
    memcpy(CMSG_DATA(header), both, sizeof both);
    assert_int_equal(sendmsg(pair->ends[0], &message, 0), 3);

    char data[64];
    size_t size = sizeof data;
    int descriptor = 0;
    unsigned before = open_descriptors();
    assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_PROTOCOL);
    assert_string_equal(why.text, "a message carries 2 descriptors");
    assert_int_equal(descriptor, -1);
    assert_int_equal(open_descriptors(), before);
}

static void test_message_too_long_for_the_buffer(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[4];
    size_t size = sizeof data;
    int descriptor = 0;
    unsigned before = open_descriptors();
    assert_int_equal(socket_send_message(pair->ends[0], "12345", 5, 0, &why), RESULT_OK);
    assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_PROTOCOL);
    assert_int_equal(descriptor, -1);
    assert_int_equal(open_descriptors(), before);
}

static void test_message_descriptor_past_the_limit(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[64];
    size_t size = sizeof data;
    int descriptor = 0;
    assert_int_equal(socket_send_message(pair->ends[0], "x", 1, 0, &why), RESULT_OK);
    struct rlimit limit = no_descriptors();
    enum result result = socket_receive_message(pair->ends[1], data, &size, &descriptor, &why);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(result, RESULT_LIMIT);
    assert_int_equal(descriptor, -1);
}

static void test_message_peer_gone(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[64];
    size_t size = sizeof data;
    int descriptor = 0;
    assert_int_equal(socket_send_message(pair->ends[0], "last", 4, -1, &why), RESULT_OK);
    socket_close(&pair->ends[0]);
    assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_OK);
    size = sizeof data;
    assert_int_equal(socket_receive_message(pair->ends[1], data, &size, &descriptor, &why), RESULT_PEER);
    assert_int_equal(size, 0);
    /* No SIGPIPE: it would end this program. */
    assert_int_equal(socket_send_message(pair->ends[1], "x", 1, -1, &why), RESULT_PEER);
}

/* The kernel reports the reset before what was sent, and only once. */
static void test_message_last_words(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[16];
    size_t size = sizeof data;
    int descriptor;
    assert_int_equal(socket_send_message(pair->ends[0], "unread", 6, -1, &why), RESULT_OK);
    assert_int_equal(socket_send_message(pair->ends[1], "last words", 10, -1, &why), RESULT_OK);
    socket_close(&pair->ends[1]);
    assert_int_equal(socket_receive_message(pair->ends[0], data, &size, &descriptor, &why), RESULT_OK);
    assert_int_equal(size, 10);
    assert_memory_equal(data, "last words", 10);
    size = sizeof data;
    assert_int_equal(socket_receive_message(pair->ends[0], data, &size, &descriptor, &why), RESULT_PEER);
}

static void test_message_queue_is_bounded(void **state)
{
    struct pair *pair = *state;
    struct failure why = {0};
    char data[4096] = {0};
    enum result result = RESULT_OK;
    unsigned sent = 0;
    for (; sent < 100000 && result == RESULT_OK; sent++)
        result = socket_send_message(pair->ends[0], data, sizeof data, -1, &why);
    assert_int_equal(result, RESULT_AGAIN);
    assert_in_range(sent, 2, 10000);
}

#define ON_UNIX(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)
#define ON_PAIR(test) cmocka_unit_test_setup_teardown(test, make_pair, close_pair)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_tcp6),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_reuse_port),
        ON_UNIX(test_unix),
        ON_UNIX(test_unix_mode),
        ON_UNIX(test_unix_stale_file_is_replaced),
        ON_UNIX(test_unix_live_file_is_left_alone),
        ON_UNIX(test_unix_full_backlog_is_live),
        ON_UNIX(test_unix_other_file_is_left_alone),
        ON_UNIX(test_unix_missing),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_accept_on_what_does_not_listen),
        ON_PAIR(test_message),
        ON_PAIR(test_message_bounds),
        ON_PAIR(test_message_descriptor),
        ON_PAIR(test_message_with_two_descriptors),
        ON_PAIR(test_message_too_long_for_the_buffer),
        ON_PAIR(test_message_descriptor_past_the_limit),
        ON_PAIR(test_message_peer_gone),
        ON_PAIR(test_message_last_words),
        ON_PAIR(test_message_queue_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
