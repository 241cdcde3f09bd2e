/* tar is an extension of cfsctl: it fetches a tar archive over HTTP and makes an image of it.
 * It was written from docs/writing-an-extension.md.  JSON by json-c; HTTP is the smallest part that serves a sample. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 512, MAX_FILES = 100000, NAME_SIZE = 256 + 2 };
#define MAX_BYTES (4LL << 30)

struct entry {
    char path[NAME_SIZE], target[NAME_SIZE], id[129];
    unsigned mode;
    long long size, uid, gid, time;
};

static json_object *run_id;
static long long last_id;

/* ---- The conversation: one JSON object a line. */

static void send_message(json_object *message) {
    json_object_object_add(message, "jsonrpc", json_object_new_string("2.0"));
    puts(json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    if (fflush(stdout)) exit(0); /* cfsctl has gone */
    json_object_put(message);
}

static json_object *get(json_object *object, const char *key) {
    json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

static const char *text(json_object *object, const char *key) {
    const char *value = json_object_get_string(get(object, key));
    return value ? value : "";
}

static void fail(json_object *id, const char *kind, const char *format, ...);

static json_object *receive(void) { /* the next message that is not a notification; at the end of input we end */
    static char *line;
    static size_t size;
    while (getline(&line, &size, stdin) > 0) {
        json_object *message = json_tokener_parse(line);
        if (!message) break;
        if (get(message, "id")) return message;
        if (run_id && !strcmp(text(message, "method"), "cancel")) fail(run_id, "cancelled", "cancelled");
        json_object_put(message);
    }
    exit(0);
}

static void fail(json_object *id, const char *kind, const char *format, ...) { /* the error that answers; then the end */
    char message[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    json_object *error = json_object_new_object(), *data = json_object_new_object(), *answer = json_object_new_object();
    json_object_object_add(data, "kind", json_object_new_string(kind));
    json_object_object_add(error, "code", json_object_new_int(-32000));
    json_object_object_add(error, "message", json_object_new_string(message));
    json_object_object_add(error, "data", data);
    json_object_object_add(answer, "id", json_object_get(id));
    json_object_object_add(answer, "error", error);
    send_message(answer);
    while (getchar() != EOF) continue;
    exit(0);
}

static json_object *call(const char *method, json_object *params) { /* its result; a refused call is our failure */
    json_object *message = json_object_new_object();
    json_object_object_add(message, "id", json_object_new_int64(++last_id));
    json_object_object_add(message, "method", json_object_new_string(method));
    json_object_object_add(message, "params", params);
    send_message(message);
    json_object *answer = receive(), *error = get(answer, "error");
    if (error) fail(run_id, text(get(error, "data"), "kind"), "%s", text(error, "message"));
    return get(answer, "result");
}

/* ---- HTTP/1.0, as much as a sample needs. */

static FILE *request(const char *url) { /* the body of what is at http://HOST[:PORT]/PATH, to be read to its end */
    char host[256], port[6] = "80", path[2000] = "/", line[4096];
    int parts = sscanf(url, "http://%255[^/:]:%5[0-9]%1999s", host, port, path);
    if (parts < 2) parts = sscanf(url, "http://%255[^/:]%1999s", host, path);
    if (parts < 1) fail(run_id, "usage", "%s: not a URL http://HOST/PATH", url);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *each;
    int error = getaddrinfo(host, port, &hints, &found), fd = -1;
    if (error) fail(run_id, "network", "%s: %s", host, gai_strerror(error));
    for (each = found; each && fd < 0; each = each->ai_next) {
        fd = socket(each->ai_family, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, each->ai_addr, each->ai_addrlen)) close(fd), fd = -1;
    }
    if (fd < 0) fail(run_id, "network", "%s: %s", url, strerror(errno));
    freeaddrinfo(found);
    FILE *stream = fdopen(fd, "r+");
    fprintf(stream, "GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host);
    fflush(stream);
    int status = 0;
    if (!fgets(line, sizeof line, stream) || sscanf(line, "HTTP/1.%*d %d", &status) != 1 || status != 200)
        fail(run_id, status == 404 ? "not_found" : "network", "%s: HTTP status %d", url, status);
    while (fgets(line, sizeof line, stream) && strcmp(line, "\r\n")) continue;
    return stream;
}

static void take(FILE *in, char *to, size_t size) { /* exactly so many bytes */
    if (fread(to, 1, size, in) != size) fail(run_id, "corrupt", "the archive ends too early");
}

/* ---- Tar: the ustar header of POSIX, with the long names of GNU. */

static long long number(const char *field, size_t size) { /* octal, or base 256 if the first bit is set */
    long long value = 0;
    if (field[0] & 0x80) {
        for (size_t i = size - 7; i < size; i++) value = value << 8 | (unsigned char)field[i];
        return value;
    }
    for (size_t i = 0; i < size && field[i]; i++)
        if (field[i] >= '0' && field[i] <= '7') value = value * 8 + field[i] - '0';
    return value;
}

static void check_header(const char *header) {
    long long sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : (unsigned char)header[i];
    if (sum != number(header + 148, 8)) fail(run_id, "corrupt", "the archive has a header with a wrong checksum");
}

static void clean(char *path) { /* make a name absolute, or refuse it */
    char in[NAME_SIZE], *part, *rest = NULL, *to = path;
    strcpy(in, path);
    *to = 0;
    for (part = strtok_r(in, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
        if (!strcmp(part, "..")) fail(run_id, "invalid", "the archive has an entry that leads out of it");
        if (strcmp(part, ".")) to += sprintf(to, "/%s", part);
    }
    if (to == path) strcpy(path, "/");
}

static void finish(FILE *out, const char *name) { /* close a staged file, or say why it is not whole */
    if (!out || ferror(out) || fclose(out)) fail(run_id, errno == ENOSPC ? "no_space" : "io", "%s: %s", name, strerror(errno));
}

static void save(FILE *in, const char *name, long long size) { /* a staged file of the next bytes */
    char buffer[1 << 16];
    FILE *out = fopen(name, "wx");
    for (long long left = size; out && left; ) {
        size_t piece = left < (long long)sizeof buffer ? (size_t)left : sizeof buffer;
        take(in, buffer, piece);
        if (fwrite(buffer, 1, piece, out) != piece) break;
        left -= piece;
    }
    finish(out, name);
}

static void put(struct entry *entry, const char *staged) { /* take a staged file into the repository */
    json_object *row = json_object_new_object(), *rows = json_object_new_array(), *params = json_object_new_object();
    json_object_object_add(row, "name", json_object_new_string(staged));
    json_object_object_add(row, "size", json_object_new_int64(entry->size));
    json_object_array_add(rows, row);
    json_object_object_add(params, "files", rows);
    json_object *answer = json_object_array_get_idx(get(call("object.put", params), "objects"), 0), *error = get(answer, "error");
    if (error) fail(run_id, text(error, "kind"), "%s: %s", entry->path, text(error, "message"));
    snprintf(entry->id, sizeof entry->id, "%s", text(answer, "id"));
}

static size_t unpack(FILE *in, struct entry **entries) { /* put all files; the entries, sorted later, are the caller's */
    static const char zeros[BLOCK];
    char header[BLOCK], long_path[NAME_SIZE] = "", long_target[NAME_SIZE] = "", padding[BLOCK], staged[32];
    size_t count = 0, room = 0;
    long long left = MAX_BYTES;
    for (;;) {
        take(in, header, BLOCK);
        if (!memcmp(header, zeros, BLOCK)) return count;
        check_header(header);
        long long size = number(header + 124, 12);
        char type = header[156];
        if (size < 0 || (left -= size + BLOCK) < 0) fail(run_id, "too_large", "the archive holds more than 4 GiB");
        if (type == 'L' || type == 'K') {
            char *to = type == 'L' ? long_path : long_target;
            if (size >= NAME_SIZE - 1) fail(run_id, "unsupported", "the archive has a name of more than 255 bytes");
            take(in, to, size);
            to[size] = 0;
        } else if (type == 'x' || type == 'g') { /* what pax adds (times, attributes) this sample leaves out */
            for (long long rest = size; rest > 0; rest--)
                if (fgetc(in) == EOF) fail(run_id, "corrupt", "the archive ends too early");
        } else {
            if (count == MAX_FILES) fail(run_id, "too_large", "the archive has more than 100,000 entries");
            if (count == room && !(*entries = realloc(*entries, (room = room * 2 + 64) * sizeof **entries))) abort();
            struct entry *entry = *entries + count++;
            memset(entry, 0, sizeof *entry);
            int prefixed = !memcmp(header + 257, "ustar\0", 6) && header[345];
            if (*long_path) strcpy(entry->path, long_path);
            else sprintf(entry->path, "%.155s%s%.100s", prefixed ? header + 345 : "", prefixed ? "/" : "", header);
            if (*long_target) strcpy(entry->target, long_target);
            else sprintf(entry->target, "%.100s", header + 157);
            *long_path = *long_target = 0;
            clean(entry->path);
            entry->mode = number(header + 100, 8) & 07777;
            entry->uid = number(header + 108, 8), entry->gid = number(header + 116, 8), entry->time = number(header + 136, 12);
            if (type == '5') entry->mode |= 0040000;
            else if (type == '2') entry->mode |= 0120000;
            else if (type == '1') clean(entry->target), entry->mode = 0; /* a hard link */
            else if (type == '0' || !type) {
                entry->mode |= 0100000, entry->size = size;
                if (size) {
                    snprintf(staged, sizeof staged, "f%zu", count);
                    save(in, staged, size);
                    put(entry, staged);
                }
            } else fail(run_id, "unsupported", "%s: an entry of type '%c'", entry->path, type);
            if (entry->mode >> 12 == 012 && !*entry->target) fail(run_id, "invalid", "%s: a link to nothing", entry->path);
            if (entry->mode >> 12 != 010 && size) fail(run_id, "invalid", "%s: has content, and is no file", entry->path);
        }
        take(in, padding, (BLOCK - size % BLOCK) % BLOCK);
    }
}

/* ---- The image and the stream. */

static int by_path(const void *a, const void *b) { return strcmp(((struct entry *)a)->path, ((struct entry *)b)->path); }
static int by_id(const void *a, const void *b) { return strcmp(((struct entry *)a)->id, ((struct entry *)b)->id); }

static void escaped(FILE *out, const char *string) {
    if (!strcmp(string, "-")) fputs("\\x2d", out);
    else for (const unsigned char *c = (const unsigned char *)string; *c; c++)
        fprintf(out, *c <= ' ' || *c >= 0x7f || *c == '\\' ? "\\x%02x" : "%c", *c);
}

static void write_dump(struct entry *entries, size_t count) { /* composefs-dump(5): the root and directories come first */
    FILE *out = fopen("dump", "wx");
    if (!out) finish(out, "dump");
    qsort(entries, count, sizeof *entries, by_path);
    if (!count || strcmp(entries[0].path, "/")) fputs("/ 0 40755 2 0 0 0 0.0 - - -\n", out);
    for (size_t i = 0; i < count; i++) {
        struct entry *e = entries + i;
        if (i && !strcmp(e->path, e[-1].path)) fail(run_id, "invalid", "%s: twice in the archive", e->path);
        escaped(out, e->path);
        long long size = *e->target ? (long long)strlen(e->target) : e->size;
        if (!e->mode) fprintf(out, " 0 @100644 1 0 0 0 0.0 "), escaped(out, e->target), fputs(" - -\n", out);
        else {
            fprintf(out, " %lld %o %d %lld %lld 0 %lld.0 ", size, e->mode, e->mode >> 12 == 4 ? 2 : 1, e->uid, e->gid, e->time);
            if (*e->id) fprintf(out, "%.2s/%s - %s\n", e->id, e->id + 2, e->id);
            else if (e->mode >> 12 == 012) escaped(out, e->target), fputs(" - -\n", out);
            else fputs("- - -\n", out);
        }
    }
    finish(out, "dump");
}

static void write_refs(struct entry *entries, size_t count) { /* the ids of all objects, each once */
    FILE *out = fopen("refs", "wx");
    if (!out) finish(out, "refs");
    qsort(entries, count, sizeof *entries, by_id);
    for (size_t i = 0; i < count; i++)
        if (*entries[i].id && (!i || strcmp(entries[i].id, entries[i - 1].id))) fprintf(out, "\"%s\"\n", entries[i].id);
    finish(out, "refs");
}

static void pull(const char *url, const char *name) {
    struct entry *entries = NULL;
    FILE *in = request(url);
    size_t count = unpack(in, &entries);
    fclose(in);
    write_dump(entries, count);
    write_refs(entries, count);
    char image[129], stream[129], place[300];
    snprintf(image, sizeof image, "%s", text(call("image.put", json_tokener_parse("{\"dump\": \"dump\"}")), "id"));
    json_object *params = json_tokener_parse("{\"content_type\": \"7461722d66657463\", \"chunks\": [], \"object_refs_file\": \"refs\"}");
    json_object *pair = json_object_new_array(), *pairs = json_object_new_array();
    json_object_array_add(pair, json_object_new_string("composefs.image"));
    json_object_array_add(pair, json_object_new_string(image));
    json_object_array_add(pairs, pair);
    json_object_object_add(params, "named_refs", pairs);
    snprintf(stream, sizeof stream, "%s", text(call("stream.put", params), "id"));
    params = json_tokener_parse("{\"streams\": [{\"if_exists\": \"replace\"}], \"images\": [{}], \"refs\": [{}]}");
    json_object *streams = json_object_array_get_idx(get(params, "streams"), 0);
    json_object *images = json_object_array_get_idx(get(params, "images"), 0), *refs = json_object_array_get_idx(get(params, "refs"), 0);
    snprintf(place, sizeof place, "tar-%.200s", name);
    json_object_object_add(streams, "name", json_object_new_string(place));
    json_object_object_add(streams, "id", json_object_new_string(stream));
    json_object_object_add(refs, "target", json_object_new_string(place));
    snprintf(place, sizeof place, "tar/%.200s", name);
    json_object_object_add(refs, "name", json_object_new_string(place));
    json_object_object_add(images, "id", json_object_new_string(image));
    json_object_object_add(images, "ref", json_object_new_string(place));
    call("publish", params);
    json_object *result = json_object_new_object(), *answer = json_object_new_object(), *output = json_object_new_object();
    snprintf(place, sizeof place, "%s\n", image);
    json_object_object_add(output, "text", json_object_new_string(place));
    json_object_object_add(answer, "method", json_object_new_string("output"));
    json_object_object_add(answer, "params", output);
    send_message(answer);
    json_object_object_add(result, "image", json_object_new_string(image));
    answer = json_object_new_object();
    json_object_object_add(answer, "id", json_object_get(run_id));
    json_object_object_add(answer, "result", result);
    send_message(answer);
}

int main(void) {
    json_object *first = receive(), *versions = get(get(first, "params"), "versions"), *answer;
    size_t i, count = versions ? json_object_array_length(versions) : 0;
    for (i = 0; i < count && json_object_get_int64(json_object_array_get_idx(versions, i)) != 1; i++) continue;
    if (i == count) fail(get(first, "id"), "unsupported", "tar speaks version 1 of the protocol");
    answer = json_tokener_parse("{\"result\": {\"version\": 1}}");
    json_object_object_add(answer, "id", json_object_get(get(first, "id")));
    send_message(answer);
    json_object *run = receive(), *arguments = get(get(run, "params"), "arguments");
    run_id = get(run, "id");
    pull(text(arguments, "url"), text(arguments, "name"));
    while (getchar() != EOF) continue;
    return 0;
}
