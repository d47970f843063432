#include "common/process_private.h"

#include <string.h>

#include <sys/socket.h>

#include "common/bytes.h"
#include "common/socket.h"

#define MESSAGE_HEADER 13 /* type, first, second */
#define MESSAGE_SIZE   (MESSAGE_HEADER + FAILURE_TEXT_SIZE)

enum result message_send(int control, const struct message *message, struct failure *why)
{
    uint8_t data[MESSAGE_SIZE];
    struct writer to = writer_of(data, sizeof data);
    write_u8(&to, (uint8_t)message->type);
    write_u32(&to, message->first);
    write_u64(&to, message->second);
    write_bytes(&to, bytes_of(message->text, strnlen(message->text, FAILURE_TEXT_SIZE - 1)));
    struct bytes sent = writer_bytes(&to);
    return socket_send_message(control, sent.data, sent.size, message->descriptor, why);
}

/* The sender may be a child that somebody has taken over: everything is checked. */
static bool message_parse(struct bytes data, struct message *message)
{
    struct reader from = reader_of(data);
    uint8_t type;
    if (!read_u8(&from, &type) || !read_u32(&from, &message->first) || !read_u64(&from, &message->second))
        return false;
    struct bytes text = bytes_of(from.next, from.left);
    if (type == 0 || type >= MESSAGE_TYPES || text.size >= sizeof message->text)
        return false;
    message->type = (enum message_type)type;
    if (text.size > 0)
        memcpy(message->text, text.data, text.size);
    message->text[text.size] = '\0';
    return true;
}

enum result message_receive(int control, struct message *message, struct failure *why)
{
    uint8_t data[MESSAGE_SIZE];
    size_t size = sizeof data;
    *message = (struct message){.descriptor = -1};
    enum result result = socket_receive_message(control, data, &size, &message->descriptor, why);
    if (result != RESULT_OK)
        return result;
    if (message_parse(bytes_of(data, size), message))
        return RESULT_OK;
    socket_close(&message->descriptor);
    return failure_set(why, RESULT_PROTOCOL, "a message of %zu octets that is none of ours", size);
}
