#include "keyserver/audit_record.h"

#include <stddef.h>

void audit_record_write(struct writer *to, const struct audit_record *record)
{
    write_u8(to, AUDIT_RECORD);
    WRITE_VECTOR(to, 3)
    {
        write_u64(to, record->number);
        write_u64(to, record->time);
        write_u16(to, record->entry);
        write_u8(to, record->opcode);
        write_u8(to, record->outcome);
        write_u8(to, record->error);
        write_u8(to, record->replay ? 1 : 0);
        write_bytes(to, bytes_of(record->ski, sizeof record->ski));
        write_vector8(to, bytes_of(record->signed_octets, record->signed_size));
        write_vector8(to, bytes_of(record->sni, record->sni_size));
        write_vector8(to, bytes_of(record->client_ip, record->client_ip_size));
        write_vector8(to, bytes_of(record->name, record->name_size));
    }
}

bool audit_record_parse(struct bytes body, struct audit_record *record)
{
    struct reader from = reader_of(body);
    uint8_t replay;
    *record = (struct audit_record){0};
    if (!read_u64(&from, &record->number) || !read_u64(&from, &record->time) ||
        !read_u16(&from, &record->entry) || !read_u8(&from, &record->opcode) ||
        !read_u8(&from, &record->outcome) || !read_u8(&from, &record->error) || !read_u8(&from, &replay) ||
        replay > 1)
        return false;
    record->replay = replay == 1;
    return read_copy(&from, record->ski, sizeof record->ski) &&
           read_vector8_copy(&from, record->signed_octets, &record->signed_size, AUDIT_SIGNED_MAX) &&
           read_vector8_copy(&from, record->sni, &record->sni_size, SIGN_SNI_MAX) &&
           read_vector8_copy(&from, record->client_ip, &record->client_ip_size, SIGN_CLIENT_IP_MAX) &&
           read_vector8_copy(&from, record->name, &record->name_size, KSSL_REQUEST_ID_MAX) &&
           reader_empty(&from);
}

void audit_written_write(struct writer *to, uint64_t number)
{
    write_u8(to, AUDIT_WRITTEN);
    WRITE_VECTOR(to, 3)
    {
        write_u64(to, number);
    }
}

bool audit_written_parse(struct bytes body, uint64_t *number)
{
    struct reader from = reader_of(body);
    return read_u64(&from, number) && reader_empty(&from);
}

const char *audit_outcome_name(uint8_t outcome)
{
    static const char *const NAMES[] = {
        [AUDIT_DONE] = "done",
        [AUDIT_FAILED] = "failed",
        [AUDIT_FORBIDDEN] = "forbidden",
        [AUDIT_REPLAYED] = "replayed",
    };
    return outcome < sizeof NAMES / sizeof *NAMES && NAMES[outcome] != NULL ? NAMES[outcome] : "unknown";
}
