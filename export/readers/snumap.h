/* snumap.h: read a crossbar map (.snumap) in C99, without any library but C's own.
 *
 * The format is specified in crossbar-map.md. In one file of a program write
 *
 *     #define SNUMAP_IMPLEMENTATION
 *     #include "snumap.h"
 *
 * and include it without the definition elsewhere. Then
 *
 *     struct snumap map;
 *     char error[SNUMAP_ERROR];
 *     if (!snumap_read(&map, "crossbar.snumap", error)) { puts(error); return 1; }
 *     for (i = 0; i < map.matrices; i++) puts(map.matrix[i].name);
 *     ... snumap_number(&map, &map.matrix[0].g_plus, row * map.matrix[0].columns + column) ...
 *     snumap_free(&map);
 *
 * snumap_read checks the header, every SHA-256 and that the parts fit together. It refuses a damaged
 * file in a sentence. The file is held in memory. The functions keep nothing between calls.
 */
#ifndef SNUMAP_H
#define SNUMAP_H

#include <stddef.h>
#include <stdint.h>

#define SNUMAP_ERROR 256 /* bytes of an error's text */
#define SNUMAP_RANK 16   /* axes of an array at most */
#define SNUMAP_PLANES 16 /* planes of a tile at most */

enum snumap_type { SNUMAP_FLOAT32, SNUMAP_FLOAT64, SNUMAP_UINT32 };

/* An array of the file: its first byte, type, axes, and the product of its axes. */
struct snumap_array {
    uint64_t offset;
    enum snumap_type type;
    uint32_t rank;
    uint64_t shape[SNUMAP_RANK];
    uint64_t count;
};

/* A matrix on tiles. Row r runs over axes row_axis of the weight, column c over column_axis. */
struct snumap_matrix {
    char *name; /* "layer/role" */
    uint32_t rank;
    uint64_t shape[SNUMAP_RANK]; /* of the weight in the network */
    uint64_t rows, columns;
    uint32_t row_axes, column_axes; /* how many */
    uint32_t row_axis[SNUMAP_RANK], column_axis[SNUMAP_RANK];
    struct snumap_array g_plus, g_minus; /* uS, float32 (rows, columns): to be held */
    /* uS, float32 (planes, rows, columns): what to program. Of version 1 it is what is to be held,
       on one plane. */
    struct snumap_array program_plus, program_minus;
    struct snumap_array scale;           /* uS per unit of weight, float64 (columns) */
};

/* A weight that stays digital: float32. */
struct snumap_parameter {
    char *name;
    struct snumap_array values;
};

/* A rectangle of a matrix on one tile, and its lines. */
struct snumap_block {
    uint64_t matrix, tile, row, rows, column, columns;
    struct snumap_array word_lines, bit_lines_plus, bit_lines_minus; /* uint32 */
};

struct snumap {
    unsigned char *data;
    uint64_t size, end; /* bytes of the file; where the description begins */
    uint64_t word_lines, bit_lines; /* of a tile */
    int version;
    size_t planes; /* of each tile */
    double significance[SNUMAP_PLANES]; /* of each plane, the largest first */
    double programmed_for; /* s until devices are to hold g_plus and g_minus; below 0: at once */
    size_t matrices, parameters, blocks;
    struct snumap_matrix *matrix;
    struct snumap_parameter *parameter;
    struct snumap_block *block;
};

/* Where a weight sits. */
struct snumap_address {
    uint64_t tile, word_line, bit_line_plus, bit_line_minus;
};

/* Read and check a file. Returns 1, or 0 with a sentence in `error`; the map is empty then. */
int snumap_read(struct snumap *map, const char *path, char error[SNUMAP_ERROR]);
/* The same of bytes that `malloc` gave; the map owns them from now on, also when it returns 0. */
int snumap_parse(struct snumap *map, unsigned char *data, size_t size, char error[SNUMAP_ERROR]);
void snumap_free(struct snumap *map);

/* Element `index` of an array of the map, in row-major order; index < count. */
double snumap_number(const struct snumap *map, const struct snumap_array *array, uint64_t index);
/* The weight at a row and a column of a matrix: (G+ - G-) / scale. */
float snumap_weight(const struct snumap *map, const struct snumap_matrix *matrix, uint64_t row,
                    uint64_t column);
/* The place of that weight in the weight array of the network, in row-major order. */
uint64_t snumap_place(const struct snumap_matrix *matrix, uint64_t row, uint64_t column);
/* Where that weight sits. Returns 0 where the matrix has no such row or column. */
int snumap_find(const struct snumap *map, size_t matrix, uint64_t row, uint64_t column,
                struct snumap_address *address);

#endif

#ifdef SNUMAP_IMPLEMENTATION

#include <errno.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNUMAP_HEADER 64u
#define SNUMAP_ALIGNMENT 64u
#define SNUMAP_DESCRIPTION 268435456u /* bytes of a description at most: 256 MiB */
#define SNUMAP_COUNT 9007199254740991u
#define SNUMAP_DEPTH 64     /* of JSON in JSON */
#define SNUMAP_KEYS 64      /* of an object */
#define SNUMAP_NAME 4000u   /* bytes of a name */

/* ---- SHA-256 (FIPS 180-4) ---- */

static uint32_t snumap__rotated(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static void snumap__sha_block(uint32_t h[8], const unsigned char *p)
{
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t w[64], v[8];
    int i;
    for (i = 0; i < 16; i++) {
        const unsigned char *q = p + 4 * i;
        w[i] = (uint32_t)q[0] << 24 | (uint32_t)q[1] << 16 | (uint32_t)q[2] << 8 | q[3];
    }
    for (i = 16; i < 64; i++) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7]
            + (snumap__rotated(a, 7) ^ snumap__rotated(a, 18) ^ (a >> 3))
            + (snumap__rotated(b, 17) ^ snumap__rotated(b, 19) ^ (b >> 10));
    }
    memcpy(v, h, sizeof v);
    for (i = 0; i < 64; i++) {
        const uint32_t e = v[4], a = v[0];
        const uint32_t one = v[7] + k[i] + w[i] + ((e & v[5]) ^ (~e & v[6]))
            + (snumap__rotated(e, 6) ^ snumap__rotated(e, 11) ^ snumap__rotated(e, 25));
        const uint32_t two = ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]))
            + (snumap__rotated(a, 2) ^ snumap__rotated(a, 13) ^ snumap__rotated(a, 22));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (i = 0; i < 8; i++) h[i] += v[i];
}

static void snumap__sha256(const unsigned char *data, uint64_t size, unsigned char digest[32])
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char last[128];
    const uint64_t whole = size / 64;
    const size_t rest = (size_t)(size % 64), tail = rest < 56 ? 64 : 128;
    uint64_t i;
    for (i = 0; i < whole; i++) snumap__sha_block(h, data + 64 * i);
    memset(last, 0, sizeof last);
    if (rest) memcpy(last, data + 64 * whole, rest);
    last[rest] = 0x80;
    for (i = 0; i < 8; i++) last[tail - 1 - i] = (unsigned char)((size * 8) >> (8 * i));
    snumap__sha_block(h, last);
    if (tail == 128) snumap__sha_block(h, last + 64);
    for (i = 0; i < 32; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- JSON ---- */

/* A value of the description: 'o'bject, 'a'rray, 's'tring, 'n'umber, 'w'ord (true, false, null). */
struct snumap__value {
    uint32_t start, length; /* bytes of the text; of a string without its quotes */
    uint32_t next;          /* the value after all that is inside of this one */
    uint32_t inside;        /* members of an array; members of an object, each a key and a value */
    char kind;
};

struct snumap__json {
    const unsigned char *text;
    uint32_t length, at, count, room;
    struct snumap__value *values;
    const char *wrong;
};

static int snumap__fails(struct snumap__json *json, const char *wrong)
{
    if (json->wrong == NULL) json->wrong = wrong;
    return 0;
}

static void snumap__blanks(struct snumap__json *json)
{
    while (json->at < json->length) {
        const unsigned char c = json->text[json->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        json->at++;
    }
}

static int snumap__take(struct snumap__json *json, char wanted)
{
    if (json->at < json->length && json->text[json->at] == (unsigned char)wanted) {
        json->at++;
        return 1;
    }
    return 0;
}

static uint32_t snumap__added(struct snumap__json *json, char kind)
{
    struct snumap__value *value;
    if (json->count == json->room) {
        const uint32_t room = json->room ? 2 * json->room : 256;
        void *more = room > json->room ? realloc(json->values, room * sizeof *value) : NULL;
        if (more == NULL) {
            snumap__fails(json, "needs more memory than there is");
            return UINT32_MAX;
        }
        json->values = more;
        json->room = room;
    }
    value = json->values + json->count;
    memset(value, 0, sizeof *value);
    value->kind = kind;
    value->start = json->at;
    return json->count++;
}

/* How many bytes a character of UTF-8 has; 0 where there is none. */
static uint32_t snumap__utf8(const unsigned char *p, uint32_t left)
{
    uint32_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;
    if (p[0] > 0xf4 || n > left) return 0;
    for (i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

static int snumap__string(struct snumap__json *json)
{
    uint32_t index;
    json->at++; /* the quote */
    index = snumap__added(json, 's');
    if (index == UINT32_MAX) return 0;
    while (json->at < json->length) {
        const unsigned char *p = json->text + json->at;
        uint32_t n = snumap__utf8(p, json->length - json->at), i;
        if (n == 0) return snumap__fails(json, "holds text that is not UTF-8");
        if (*p < 0x20) return snumap__fails(json, "holds a control character in its JSON");
        if (*p == '"') {
            json->values[index].length = json->at - json->values[index].start;
            json->values[index].next = json->count;
            json->at++;
            return 1;
        }
        if (*p == '\\') {
            n = 2;
            if (json->length - json->at < 2 || p[1] == 0 || strchr("\"\\/bfnrtu", p[1]) == NULL)
                return snumap__fails(json, "holds an unknown escape in its JSON");
            if (p[1] == 'u') {
                n = 6;
                if (json->length - json->at < 6) break;
                for (i = 2; i < 6; i++)
                    if (p[i] == 0 || strchr("0123456789abcdefABCDEF", p[i]) == NULL)
                        return snumap__fails(json, "holds an unknown escape in its JSON");
            }
        }
        json->at += n;
    }
    return snumap__fails(json, "holds JSON that ends too early");
}

static int snumap__digits(struct snumap__json *json)
{
    const uint32_t start = json->at;
    while (json->at < json->length && json->text[json->at] >= '0' && json->text[json->at] <= '9')
        json->at++;
    return json->at > start;
}

static int snumap__number(struct snumap__json *json)
{
    const uint32_t index = snumap__added(json, 'n');
    uint32_t start;
    if (index == UINT32_MAX) return 0;
    snumap__take(json, '-');
    start = json->at;
    if (!snumap__digits(json)) return snumap__fails(json, "holds JSON that cannot be read");
    if (json->text[start] == '0' && json->at > start + 1)
        return snumap__fails(json, "holds a number that begins with 0");
    if (snumap__take(json, '.') && !snumap__digits(json))
        return snumap__fails(json, "holds a number without an end");
    if (snumap__take(json, 'e') || snumap__take(json, 'E')) {
        if (!snumap__take(json, '+')) snumap__take(json, '-');
        if (!snumap__digits(json)) return snumap__fails(json, "holds a number without an end");
    }
    json->values[index].length = json->at - json->values[index].start;
    json->values[index].next = json->count;
    return 1;
}

static int snumap__word(struct snumap__json *json)
{
    static const char *const words[3] = {"true", "false", "null"};
    int i;
    for (i = 0; i < 3; i++) {
        const uint32_t n = (uint32_t)strlen(words[i]);
        if (json->length - json->at >= n && memcmp(json->text + json->at, words[i], n) == 0) {
            const uint32_t index = snumap__added(json, 'w');
            if (index == UINT32_MAX) return 0;
            json->at += n;
            json->values[index].length = n;
            json->values[index].next = json->count;
            return 1;
        }
    }
    return snumap__fails(json, "holds JSON that cannot be read");
}

static int snumap__is_repeated(const struct snumap__json *json, uint32_t first, uint32_t key)
{
    const struct snumap__value *wanted = json->values + key;
    uint32_t at = first;
    while (at < key) {
        const struct snumap__value *each = json->values + at;
        if (each->length == wanted->length
            && memcmp(json->text + each->start, json->text + wanted->start, wanted->length) == 0)
            return 1;
        at = json->values[each->next].next; /* over the value */
    }
    return 0;
}

static int snumap__json_value(struct snumap__json *json, int depth)
{
    const char open = json->at < json->length ? (char)json->text[json->at] : '\0';
    const char close = open == '{' ? '}' : ']';
    uint32_t index;
    if (open == '"') return snumap__string(json);
    if (open == '-' || (open >= '0' && open <= '9')) return snumap__number(json);
    if (open != '{' && open != '[') return snumap__word(json);
    if (depth >= SNUMAP_DEPTH) return snumap__fails(json, "holds JSON that is nested too deeply");
    index = snumap__added(json, open == '{' ? 'o' : 'a');
    if (index == UINT32_MAX) return 0;
    json->at++;
    snumap__blanks(json);
    while (!snumap__take(json, close)) {
        if (json->values[index].inside > 0) {
            if (!snumap__take(json, ',')) return snumap__fails(json, "holds JSON without a comma");
            snumap__blanks(json);
        }
        if (open == '{') {
            const uint32_t key = json->count;
            if (json->values[index].inside >= SNUMAP_KEYS)
                return snumap__fails(json, "holds an object of too many keys");
            if (json->at >= json->length || json->text[json->at] != '"')
                return snumap__fails(json, "holds JSON without a key");
            if (!snumap__string(json)) return 0;
            if (snumap__is_repeated(json, index + 1, key))
                return snumap__fails(json, "holds JSON with a repeated key");
            snumap__blanks(json);
            if (!snumap__take(json, ':')) return snumap__fails(json, "holds JSON without a colon");
            snumap__blanks(json);
        }
        if (!snumap__json_value(json, depth + 1)) return 0;
        json->values[index].inside++;
        snumap__blanks(json);
        if (json->at >= json->length) return snumap__fails(json, "holds JSON that ends too early");
    }
    json->values[index].next = json->count;
    return 1;
}

/* ---- the description ---- */

struct snumap__reader {
    struct snumap *map;
    struct snumap__json json;
    struct snumap_array *arrays; /* all that was read, for the check of gaps */
    size_t count, room;
    char *error;
    const char *path;
};

static int snumap__refuse(struct snumap__reader *reader, const char *what)
{
    snprintf(reader->error, SNUMAP_ERROR, "%.150s %.100s.", reader->path, what);
    return 0;
}

/* The member of an object by its key, 0 where there is none. */
static uint32_t snumap__member(const struct snumap__reader *reader, uint32_t object, const char *key)
{
    const struct snumap__json *json = &reader->json;
    uint32_t at = object + 1, i;
    if (json->values[object].kind != 'o') return 0;
    for (i = 0; i < json->values[object].inside; i++) {
        const struct snumap__value *name = json->values + at;
        if (name->length == strlen(key)
            && memcmp(json->text + name->start, key, name->length) == 0)
            return name->next;
        at = json->values[name->next].next;
    }
    return 0;
}

static int snumap__part(struct snumap__reader *reader, uint32_t object, const char *key, char kind,
                        uint32_t *found)
{
    char what[100];
    *found = snumap__member(reader, object, key);
    if (*found && reader->json.values[*found].kind == kind) return 1;
    snprintf(what, sizeof what, "has no %.30s where its description needs one", key);
    return snumap__refuse(reader, what);
}

static int snumap__whole(struct snumap__reader *reader, uint32_t index, uint64_t least,
                         uint64_t *found)
{
    const struct snumap__value *value = reader->json.values + index;
    const unsigned char *text = reader->json.text + value->start;
    uint32_t i;
    *found = 0;
    if (value->kind != 'n' || value->length > 16)
        return snumap__refuse(reader, "has a size or a place that cannot be");
    for (i = 0; i < value->length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return snumap__refuse(reader, "has a size or a place that is no whole number");
        *found = 10 * *found + (uint64_t)(text[i] - '0');
    }
    if (*found < least || *found > SNUMAP_COUNT)
        return snumap__refuse(reader, "has a size or a place that cannot be");
    return 1;
}

static int snumap__count_of(struct snumap__reader *reader, uint32_t object, const char *key,
                            uint64_t least, uint64_t *found)
{
    uint32_t value;
    return snumap__part(reader, object, key, 'n', &value)
        && snumap__whole(reader, value, least, found);
}

static int snumap__is(const struct snumap__reader *reader, uint32_t index, const char *text)
{
    const struct snumap__value *value = reader->json.values + index;
    return value->kind == 's' && value->length == strlen(text)
        && memcmp(reader->json.text + value->start, text, value->length) == 0;
}

/* Whole numbers of an array. */
static int snumap__sizes(struct snumap__reader *reader, uint32_t object, const char *key,
                         uint64_t least, uint64_t sizes[SNUMAP_RANK], uint32_t *rank)
{
    uint32_t list, at, i;
    if (!snumap__part(reader, object, key, 'a', &list)) return 0;
    if (reader->json.values[list].inside > SNUMAP_RANK)
        return snumap__refuse(reader, "has an array of too many axes");
    *rank = reader->json.values[list].inside;
    for (at = list + 1, i = 0; i < *rank; i++, at = reader->json.values[at].next)
        if (!snumap__whole(reader, at, least, sizes + i)) return 0;
    return 1;
}

static int snumap__digest_fits(struct snumap__reader *reader, uint32_t index,
                               const unsigned char *data, uint64_t size)
{
    static const char digits[] = "0123456789abcdef";
    const struct snumap__value *value = reader->json.values + index;
    unsigned char digest[32];
    int i;
    if (value->length != 64) return 0;
    snumap__sha256(data, size, digest);
    for (i = 0; i < 64; i++) {
        const int digit = i % 2 ? digest[i / 2] & 15 : digest[i / 2] >> 4;
        if (reader->json.text[value->start + (uint32_t)i] != (unsigned char)digits[digit]) return 0;
    }
    return 1;
}

/* The array that an entry refers to: its place, type, form, and SHA-256. */
static int snumap__array(struct snumap__reader *reader, uint32_t object, const char *key,
                         enum snumap_type type, struct snumap_array *array)
{
    static const char *const names[3] = {"float32", "float64", "uint32"};
    const uint64_t itemsize = type == SNUMAP_FLOAT64 ? 8 : 4;
    const struct snumap *map = reader->map;
    uint32_t reference, name, digest, i;
    if (!snumap__part(reader, object, key, 'o', &reference)
        || !snumap__count_of(reader, reference, "offset", 0, &array->offset)
        || !snumap__sizes(reader, reference, "shape", 0, array->shape, &array->rank)
        || !snumap__part(reader, reference, "dtype", 's', &name)
        || !snumap__part(reader, reference, "sha256", 's', &digest))
        return 0;
    if (!snumap__is(reader, name, names[type]))
        return snumap__refuse(reader, "has an array of another type than its place needs");
    array->type = type;
    array->count = 1;
    for (i = 0; i < array->rank; i++) {
        if (array->shape[i] != 0 && array->count > map->size / array->shape[i])
            return snumap__refuse(reader, "is inconsistent: an array is larger than the file");
        array->count *= array->shape[i];
    }
    if (array->offset < SNUMAP_HEADER || array->offset % SNUMAP_ALIGNMENT
        || array->offset > map->end || array->count > (map->end - array->offset) / itemsize)
        return snumap__refuse(reader, "is cut off or inconsistent: an array does not fit");
    if (!snumap__digest_fits(reader, digest, map->data + array->offset, array->count * itemsize))
        return snumap__refuse(reader, "was altered: an array has another sha256");
    if (reader->count == reader->room) {
        const size_t room = reader->room ? 2 * reader->room : 64;
        void *more = realloc(reader->arrays, room * sizeof *reader->arrays);
        if (more == NULL) return snumap__refuse(reader, "needs more memory than there is");
        reader->arrays = more;
        reader->room = room;
    }
    reader->arrays[reader->count++] = *array;
    return 1;
}

/* A number above 0, or 0 where `zero` allows it. */
static int snumap__real(struct snumap__reader *reader, uint32_t index, int zero, double *found)
{
    const struct snumap__value *value = reader->json.values + index;
    char text[64];
    if (value->kind == 'n' && value->length < sizeof text) {
        memcpy(text, reader->json.text + value->start, value->length);
        text[value->length] = '\0';
        *found = strtod(text, NULL);
        if ((*found > 0 || (zero && *found == 0)) && *found <= DBL_MAX) return 1;
    }
    return snumap__refuse(reader, "has a number of its programming that cannot be");
}

/* How devices are programmed, which version 2 tells. */
static int snumap__programming(struct snumap__reader *reader)
{
    struct snumap *const map = reader->map;
    uint32_t object = snumap__member(reader, 0, "programming"), list, at, i;
    map->planes = 1;
    map->significance[0] = 1.0;
    map->programmed_for = -1.0;
    if ((object != 0) != (map->version == 2))
        return snumap__refuse(reader, "tells its programming against its version");
    if (map->version == 1) return 1;
    if (!snumap__part(reader, 0, "programming", 'o', &object)
        || !snumap__part(reader, object, "significances", 'a', &list))
        return 0;
    map->planes = reader->json.values[list].inside;
    if (map->planes < 1 || map->planes > SNUMAP_PLANES)
        return snumap__refuse(reader, "has no planes, or more than 16");
    for (at = list + 1, i = 0; i < map->planes; i++, at = reader->json.values[at].next) {
        if (!snumap__real(reader, at, 0, map->significance + i)) return 0;
        if (i > 0 && map->significance[i] > map->significance[i - 1])
            return snumap__refuse(reader, "has planes that are not in the order of significance");
    }
    at = snumap__member(reader, object, "time_s");
    if (at && (reader->json.values[at].kind != 'w'
               || reader->json.text[reader->json.values[at].start] != 'n')) /* null */
        return snumap__real(reader, at, 1, &map->programmed_for);
    return 1;
}

static int snumap__has_shape(const struct snumap_array *array, uint64_t rows, uint64_t columns)
{
    if (columns == 0) return array->rank == 1 && array->shape[0] == rows;
    return array->rank == 2 && array->shape[0] == rows && array->shape[1] == columns;
}

/* A name: printable, without escapes, and leading out of no folder. */
static int snumap__name(struct snumap__reader *reader, uint32_t object, char **found)
{
    uint32_t value, length, i;
    const char *text;
    if (!snumap__part(reader, object, "name", 's', &value)) return 0;
    length = reader->json.values[value].length;
    text = (const char *)reader->json.text + reader->json.values[value].start;
    if (length == 0 || length > SNUMAP_NAME || text[0] == '/')
        return snumap__refuse(reader, "has a name that is not one of a layer");
    *found = malloc((size_t)length + 1);
    if (*found == NULL) return snumap__refuse(reader, "needs more memory than there is");
    value = 0; /* bytes written */
    for (i = 0; i < length; i++) {
        char c = text[i];
        if (c == '\\') c = text[++i]; /* the text is checked: there is one more */
        if ((text[i - (i > 0)] == '\\' && c != '"' && c != '/') || (unsigned char)c < 0x20 || c == 0x7f)
            return snumap__refuse(reader, "has a name that is not one of a layer");
        (*found)[value++] = c;
    }
    (*found)[value] = '\0';
    for (i = 0; i < value; i++) {
        const int starts = i == 0 || (*found)[i - 1] == '/';
        if (starts && strncmp(*found + i, "..", 2) == 0 && strchr("/", (*found)[i + 2]) != NULL)
            return snumap__refuse(reader, "has a name that leads out of its folder");
    }
    return (*found)[0] != '/' || snumap__refuse(reader, "has a name that leads to the root");
}

static int snumap__axes(struct snumap__reader *reader, uint32_t object,
                        struct snumap_matrix *matrix)
{
    uint64_t sizes[SNUMAP_RANK], rows = 1, columns = 1;
    uint32_t i, seen = 0;
    const int given = snumap__member(reader, object, "row_axes") != 0;
    if (given != (snumap__member(reader, object, "column_axes") != 0))
        return snumap__refuse(reader, "has row axes or column axes alone");
    if (!given) {
        if (matrix->rank == 0) return snumap__refuse(reader, "has a weight without axes");
        matrix->row_axes = matrix->rank - 1;
        matrix->column_axes = 1;
        for (i = 0; i + 1 < matrix->rank; i++) matrix->row_axis[i] = i;
        matrix->column_axis[0] = matrix->rank - 1;
    } else {
        if (!snumap__sizes(reader, object, "row_axes", 0, sizes, &matrix->row_axes)) return 0;
        for (i = 0; i < matrix->row_axes; i++) matrix->row_axis[i] = (uint32_t)(sizes[i] & 255);
        for (i = 0; i < matrix->row_axes; i++) if (sizes[i] > 15) matrix->row_axis[i] = 255;
        if (!snumap__sizes(reader, object, "column_axes", 0, sizes, &matrix->column_axes)) return 0;
        for (i = 0; i < matrix->column_axes; i++)
            matrix->column_axis[i] = sizes[i] > 15 ? 255 : (uint32_t)sizes[i];
    }
    if (matrix->row_axes + matrix->column_axes != matrix->rank)
        return snumap__refuse(reader, "has axes that are not those of its weight");
    for (i = 0; i < matrix->rank; i++) {
        const int row = i < matrix->row_axes;
        const uint32_t axis = row ? matrix->row_axis[i] : matrix->column_axis[i - matrix->row_axes];
        uint64_t *const product = row ? &rows : &columns;
        if (axis >= matrix->rank || (seen >> axis & 1))
            return snumap__refuse(reader, "has axes that are not those of its weight");
        seen |= (uint32_t)1 << axis;
        if (*product > SNUMAP_COUNT / matrix->shape[axis])
            return snumap__refuse(reader, "has a weight whose size cannot be");
        *product *= matrix->shape[axis];
    }
    if (rows != matrix->rows || columns != matrix->columns)
        return snumap__refuse(reader, "has a weight whose shape is not its rows and columns");
    return 1;
}

/* What to program: arrays of their own in version 2. */
static int snumap__programs(struct snumap__reader *reader, uint32_t object,
                            struct snumap_matrix *matrix)
{
    static const char *const keys[2] = {"program_plus", "program_minus"};
    struct snumap_array *const arrays[2] = {&matrix->program_plus, &matrix->program_minus};
    const struct snumap *map = reader->map;
    uint64_t i;
    int k;
    *arrays[0] = matrix->g_plus;
    *arrays[1] = matrix->g_minus;
    for (k = 0; k < 2; k++) {
        if ((snumap__member(reader, object, keys[k]) != 0) != (map->version == 2))
            return snumap__refuse(reader, "tells what to program against its version");
        if (map->version == 1) continue;
        if (!snumap__array(reader, object, keys[k], SNUMAP_FLOAT32, arrays[k])) return 0;
        if (arrays[k]->rank != 3 || arrays[k]->shape[0] != map->planes
            || arrays[k]->shape[1] != matrix->rows || arrays[k]->shape[2] != matrix->columns)
            return snumap__refuse(reader, "has conductances of another shape than their matrix");
        for (i = 0; i < arrays[k]->count; i++) {
            const double g = snumap_number(map, arrays[k], i);
            if (!(g >= 0 && g <= FLT_MAX))
                return snumap__refuse(reader, "has a conductance that cannot be");
        }
    }
    return 1;
}

static int snumap__matrix(struct snumap__reader *reader, uint32_t object,
                          struct snumap_matrix *matrix)
{
    const struct snumap *map = reader->map;
    uint64_t i;
    if (!snumap__name(reader, object, &matrix->name)
        || !snumap__count_of(reader, object, "rows", 1, &matrix->rows)
        || !snumap__count_of(reader, object, "columns", 1, &matrix->columns)
        || !snumap__sizes(reader, object, "shape", 1, matrix->shape, &matrix->rank)
        || !snumap__axes(reader, object, matrix)
        || !snumap__array(reader, object, "g_plus", SNUMAP_FLOAT32, &matrix->g_plus)
        || !snumap__array(reader, object, "g_minus", SNUMAP_FLOAT32, &matrix->g_minus)
        || !snumap__array(reader, object, "scale", SNUMAP_FLOAT64, &matrix->scale))
        return 0;
    if (!snumap__programs(reader, object, matrix)) return 0;
    if (!snumap__has_shape(&matrix->g_plus, matrix->rows, matrix->columns)
        || !snumap__has_shape(&matrix->g_minus, matrix->rows, matrix->columns)
        || !snumap__has_shape(&matrix->scale, matrix->columns, 0))
        return snumap__refuse(reader, "has conductances of another shape than their matrix");
    for (i = 0; i < matrix->g_plus.count; i++) {
        const double plus = snumap_number(map, &matrix->g_plus, i);
        const double minus = snumap_number(map, &matrix->g_minus, i);
        if (!(plus >= 0 && plus <= FLT_MAX && minus >= 0 && minus <= FLT_MAX))
            return snumap__refuse(reader, "has a conductance that cannot be");
    }
    for (i = 0; i < matrix->columns; i++) {
        const double scale = snumap_number(map, &matrix->scale, i);
        if (!(scale > 0 && scale <= DBL_MAX))
            return snumap__refuse(reader, "has a scale that is not positive");
    }
    return 1;
}

static int snumap__parameter(struct snumap__reader *reader, uint32_t object,
                             struct snumap_parameter *parameter)
{
    uint64_t i;
    if (!snumap__name(reader, object, &parameter->name)
        || !snumap__array(reader, object, "values", SNUMAP_FLOAT32, &parameter->values))
        return 0;
    for (i = 0; i < parameter->values.count; i++) {
        const double value = snumap_number(reader->map, &parameter->values, i);
        if (!(value >= -FLT_MAX && value <= FLT_MAX))
            return snumap__refuse(reader, "has a parameter that is not finite");
    }
    return 1;
}

static int snumap__lines(struct snumap__reader *reader, const struct snumap_array *lines,
                         uint64_t wanted, uint64_t limit)
{
    uint64_t i;
    if (!snumap__has_shape(lines, wanted, 0))
        return snumap__refuse(reader, "has a block with another number of lines");
    for (i = 0; i < wanted; i++)
        if (snumap_number(reader->map, lines, i) >= (double)limit)
            return snumap__refuse(reader, "has a block on a line that its tile does not have");
    return 1;
}

static int snumap__block(struct snumap__reader *reader, uint32_t object, struct snumap_block *block)
{
    const struct snumap *map = reader->map;
    const struct snumap_matrix *matrix;
    if (!snumap__count_of(reader, object, "matrix", 0, &block->matrix)
        || !snumap__count_of(reader, object, "tile", 0, &block->tile)
        || !snumap__count_of(reader, object, "row", 0, &block->row)
        || !snumap__count_of(reader, object, "rows", 1, &block->rows)
        || !snumap__count_of(reader, object, "column", 0, &block->column)
        || !snumap__count_of(reader, object, "columns", 1, &block->columns))
        return 0;
    if (block->matrix >= map->matrices)
        return snumap__refuse(reader, "has a block of a matrix that it does not have");
    matrix = map->matrix + block->matrix;
    if (block->row + block->rows > matrix->rows || block->column + block->columns > matrix->columns)
        return snumap__refuse(reader, "has a block that exceeds its matrix");
    return snumap__array(reader, object, "word_lines", SNUMAP_UINT32, &block->word_lines)
        && snumap__array(reader, object, "bit_lines_plus", SNUMAP_UINT32, &block->bit_lines_plus)
        && snumap__array(reader, object, "bit_lines_minus", SNUMAP_UINT32, &block->bit_lines_minus)
        && snumap__lines(reader, &block->word_lines, block->rows, map->word_lines)
        && snumap__lines(reader, &block->bit_lines_plus, block->columns, map->bit_lines)
        && snumap__lines(reader, &block->bit_lines_minus, block->columns, map->bit_lines);
}

/* ---- checks of the whole ---- */

static int snumap__earlier(const void *a, const void *b)
{
    const struct snumap_array *one = a, *two = b;
    if (one->offset != two->offset) return one->offset < two->offset ? -1 : 1;
    return one->count < two->count ? -1 : one->count > two->count;
}

static int snumap__gaps(struct snumap__reader *reader)
{
    const struct snumap *map = reader->map;
    uint64_t end = SNUMAP_HEADER, at;
    size_t i;
    if (reader->count) qsort(reader->arrays, reader->count, sizeof *reader->arrays, snumap__earlier);
    for (i = 0; i <= reader->count; i++) {
        const struct snumap_array *array = i < reader->count ? reader->arrays + i : NULL;
        const uint64_t start = array ? array->offset : map->end;
        if (start < end) return snumap__refuse(reader, "has arrays that overlap");
        if (start - end >= SNUMAP_ALIGNMENT)
            return snumap__refuse(reader, "has unexpected bytes between arrays");
        for (at = end; at < start; at++)
            if (map->data[at]) return snumap__refuse(reader, "has unexpected bytes between arrays");
        if (array) end = start + array->count * (array->type == SNUMAP_FLOAT64 ? 8u : 4u);
    }
    return 1;
}

/* Blocks cover each matrix once; a bit for each weight, whose bytes are in the file. */
static int snumap__cover(struct snumap__reader *reader)
{
    const struct snumap *map = reader->map;
    size_t m, b;
    for (m = 0; m < map->matrices; m++) {
        const uint64_t columns = map->matrix[m].columns, size = map->matrix[m].rows * columns;
        unsigned char *const taken = calloc((size_t)(size / 8 + 1), 1);
        uint64_t covered = 0, i, j;
        int twice = 0;
        if (taken == NULL) return snumap__refuse(reader, "needs more memory than there is");
        for (b = 0; b < map->blocks && !twice; b++) {
            const struct snumap_block *block = map->block + b;
            if (block->matrix != m) continue;
            for (i = block->row; i < block->row + block->rows && !twice; i++)
                for (j = block->column; j < block->column + block->columns; j++) {
                    const uint64_t place = i * columns + j;
                    twice |= taken[place / 8] >> (place % 8) & 1;
                    taken[place / 8] |= (unsigned char)(1u << (place % 8));
                    covered++;
                }
        }
        free(taken);
        if (twice) return snumap__refuse(reader, "has blocks that overlap");
        if (covered != size) return snumap__refuse(reader, "has a matrix that is not covered");
    }
    return 1;
}

/* No cross-point carries two devices; one tile after another, a bit for each cross-point. */
static int snumap__mark(const struct snumap *map, const struct snumap_block *block,
                        unsigned char *taken)
{
    uint64_t i, j;
    for (i = 0; i < block->rows; i++)
        for (j = 0; j < 2 * block->columns; j++) {
            const struct snumap_array *const bits
                = j < block->columns ? &block->bit_lines_plus : &block->bit_lines_minus;
            const uint64_t place
                = (uint64_t)snumap_number(map, &block->word_lines, i) * map->bit_lines
                + (uint64_t)snumap_number(map, bits, j % block->columns);
            if (taken[place / 8] >> (place % 8) & 1) return 0;
            taken[place / 8] |= (unsigned char)(1u << (place % 8));
        }
    return 1;
}

static int snumap__by_tile(const void *a, const void *b)
{
    const struct snumap_block *one = *(const struct snumap_block *const *)a;
    const struct snumap_block *two = *(const struct snumap_block *const *)b;
    return one->tile < two->tile ? -1 : one->tile > two->tile;
}

static int snumap__points(struct snumap__reader *reader)
{
    const struct snumap *map = reader->map;
    const size_t room = (size_t)(map->word_lines * map->bit_lines / 8 + 1);
    const struct snumap_block **const order = malloc((map->blocks + 1) * sizeof *order);
    unsigned char *const taken = malloc(room);
    size_t b;
    int good = order != NULL && taken != NULL;
    if (!good) snumap__refuse(reader, "needs more memory than there is");
    for (b = 0; good && b < map->blocks; b++) order[b] = map->block + b;
    if (good) qsort(order, map->blocks, sizeof *order, snumap__by_tile);
    for (b = 0; good && b < map->blocks; b++) {
        if (b == 0 || order[b]->tile != order[b - 1]->tile) memset(taken, 0, room);
        if (!snumap__mark(map, order[b], taken))
            good = snumap__refuse(reader, "has two devices at one cross-point");
    }
    free(taken);
    free(order);
    return good;
}

static int snumap__by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int snumap__names(struct snumap__reader *reader)
{
    const struct snumap *map = reader->map;
    const size_t count = map->matrices + map->parameters;
    const char **const names = malloc((count + 1) * sizeof *names);
    size_t i;
    int good = names != NULL;
    if (!good) return snumap__refuse(reader, "needs more memory than there is");
    for (i = 0; i < map->matrices; i++) names[i] = map->matrix[i].name;
    for (i = 0; i < map->parameters; i++) names[map->matrices + i] = map->parameter[i].name;
    qsort(names, count, sizeof *names, snumap__by_name);
    for (i = 1; i < count; i++) good = good && strcmp(names[i - 1], names[i]) != 0;
    free(names);
    return good || snumap__refuse(reader, "uses a name twice");
}

static int snumap__tile(struct snumap__reader *reader)
{
    struct snumap *const map = reader->map;
    uint32_t target, tile, kind;
    if (!snumap__part(reader, 0, "target", 'o', &target)
        || !snumap__part(reader, target, "tile", 'o', &tile)
        || !snumap__count_of(reader, tile, "rows", 1, &map->word_lines)
        || !snumap__count_of(reader, tile, "columns", 1, &map->bit_lines)
        || !snumap__part(reader, tile, "crosspoint", 's', &kind))
        return 0;
    if (map->word_lines > 65536 || map->bit_lines > 65536)
        return snumap__refuse(reader, "has a tile of more than 65536 lines");
    if (snumap__is(reader, kind, "pair")) map->bit_lines *= 2;
    return 1;
}

static int snumap__contents(struct snumap__reader *reader)
{
    struct snumap *const map = reader->map;
    struct snumap__value *values;
    uint32_t lists[3], format, at;
    uint64_t version;
    size_t i;
    if (!snumap__json_value(&reader->json, 0)) return snumap__refuse(reader, reader->json.wrong);
    snumap__blanks(&reader->json);
    values = reader->json.values;
    if (reader->json.at != reader->json.length || values[0].kind != 'o')
        return snumap__refuse(reader, "holds JSON that is not one object");
    if (!snumap__part(reader, 0, "format", 's', &format)
        || !snumap__count_of(reader, 0, "version", 1, &version))
        return 0;
    if (!snumap__is(reader, format, "snukeras-crossbar-map") || version != (uint64_t)map->version)
        return snumap__refuse(reader, "does not describe a crossbar map of its version");
    if (!snumap__tile(reader) || !snumap__programming(reader)
        || !snumap__part(reader, 0, "matrices", 'a', lists)
        || !snumap__part(reader, 0, "parameters", 'a', lists + 1)
        || !snumap__part(reader, 0, "blocks", 'a', lists + 2))
        return 0;
    if (values[lists[0]].inside == 0) return snumap__refuse(reader, "has no matrix");
    map->matrix = calloc((size_t)values[lists[0]].inside + 1, sizeof *map->matrix);
    map->parameter = calloc((size_t)values[lists[1]].inside + 1, sizeof *map->parameter);
    map->block = calloc((size_t)values[lists[2]].inside + 1, sizeof *map->block);
    if (map->matrix == NULL || map->parameter == NULL || map->block == NULL)
        return snumap__refuse(reader, "needs more memory than there is");
    for (at = lists[0] + 1, i = 0; i < values[lists[0]].inside; i++, at = values[at].next)
        if (!snumap__matrix(reader, at, map->matrix + map->matrices++)) return 0;
    for (at = lists[1] + 1, i = 0; i < values[lists[1]].inside; i++, at = values[at].next)
        if (!snumap__parameter(reader, at, map->parameter + map->parameters++)) return 0;
    for (at = lists[2] + 1, i = 0; i < values[lists[2]].inside; i++, at = values[at].next)
        if (!snumap__block(reader, at, map->block + map->blocks++)) return 0;
    return snumap__names(reader) && snumap__gaps(reader) && snumap__cover(reader)
        && snumap__points(reader);
}

static uint64_t snumap__little(const unsigned char *p, int bytes)
{
    uint64_t found = 0;
    while (bytes--) found = found << 8 | p[bytes];
    return found;
}

static int snumap__opened(struct snumap__reader *reader)
{
    static const unsigned char magic[8] = {0x89, 'S', 'N', 'U', 'M', 'A', 'P', 0x0a};
    struct snumap *const map = reader->map;
    unsigned char digest[32];
    uint64_t length, version;
    if (map->size < SNUMAP_HEADER)
        return snumap__refuse(reader, "is too short to be a crossbar map");
    if (memcmp(map->data, magic, 8) != 0)
        return snumap__refuse(reader, "is not a crossbar map: its first eight bytes differ");
    version = snumap__little(map->data + 8, 4);
    if (version != 1 && version != 2)
        return snumap__refuse(reader, "has another version; this reader knows versions 1 and 2");
    map->version = (int)version;
    map->end = snumap__little(map->data + 16, 8);
    length = snumap__little(map->data + 24, 8);
    if (snumap__little(map->data + 12, 4) || map->end < SNUMAP_HEADER
        || map->end % SNUMAP_ALIGNMENT || map->end > map->size || length != map->size - map->end)
        return snumap__refuse(reader, "is cut off or altered: its header tells another size");
    if (length > SNUMAP_DESCRIPTION)
        return snumap__refuse(reader, "has a description of more than 256 MiB");
    snumap__sha256(map->data + map->end, length, digest);
    if (memcmp(digest, map->data + 32, 32) != 0)
        return snumap__refuse(reader, "was altered: its description has another sha256");
    reader->json.text = map->data + map->end;
    reader->json.length = (uint32_t)length;
    return snumap__contents(reader);
}

static int snumap__read(struct snumap *map, unsigned char *data, size_t size, const char *path,
                        char error[SNUMAP_ERROR])
{
    struct snumap__reader reader;
    int good;
    memset(&reader, 0, sizeof reader);
    memset(map, 0, sizeof *map);
    map->data = data;
    map->size = size;
    reader.map = map;
    reader.error = error;
    reader.path = path;
    good = snumap__opened(&reader);
    free(reader.json.values);
    free(reader.arrays);
    if (!good) snumap_free(map);
    return good;
}

int snumap_parse(struct snumap *map, unsigned char *data, size_t size, char error[SNUMAP_ERROR])
{
    return snumap__read(map, data, size, "The map", error);
}

int snumap_read(struct snumap *map, const char *path, char error[SNUMAP_ERROR])
{
    FILE *const file = fopen(path, "rb");
    unsigned char *data = NULL;
    size_t size = 0, room = 0, got = 1;
    memset(map, 0, sizeof *map);
    while (file != NULL && got > 0) {
        if (size == room) {
            void *more;
            room = room ? 2 * room : 65536;
            more = room > size ? realloc(data, room) : NULL;
            if (more == NULL) errno = ENOMEM;
            if (more == NULL) break;
            data = more;
        }
        got = fread(data + size, 1, room - size, file);
        /* Another kind of file may have no end: it is not read on. */
        if (size == 0 && got > 0 && data[0] != 0x89) break;
        size += got;
    }
    if (file == NULL || ferror(file) || (got > 0 && size == room)) {
        snprintf(error, SNUMAP_ERROR, "%.150s cannot be read: %.80s.", path, strerror(errno));
        if (file != NULL) fclose(file);
        free(data);
        return 0;
    }
    fclose(file);
    return snumap__read(map, data, got > 0 ? got : size, path, error);
}

void snumap_free(struct snumap *map)
{
    size_t i;
    for (i = 0; i < map->matrices; i++) free(map->matrix[i].name);
    for (i = 0; i < map->parameters; i++) free(map->parameter[i].name);
    free(map->matrix);
    free(map->parameter);
    free(map->block);
    free(map->data);
    memset(map, 0, sizeof *map);
}

double snumap_number(const struct snumap *map, const struct snumap_array *array, uint64_t index)
{
    const int bytes = array->type == SNUMAP_FLOAT64 ? 8 : 4;
    const uint64_t bits
        = snumap__little(map->data + array->offset + index * (uint64_t)bytes, bytes);
    const uint32_t low = (uint32_t)bits;
    double wide;
    float narrow;
    if (array->type == SNUMAP_UINT32) return (double)low;
    memcpy(&wide, &bits, sizeof wide);
    memcpy(&narrow, &low, sizeof narrow);
    return array->type == SNUMAP_FLOAT64 ? wide : (double)narrow;
}

float snumap_weight(const struct snumap *map, const struct snumap_matrix *matrix, uint64_t row,
                    uint64_t column)
{
    const uint64_t place = row * matrix->columns + column;
    const double plus = snumap_number(map, &matrix->g_plus, place);
    const double minus = snumap_number(map, &matrix->g_minus, place);
    return (float)((plus - minus) / snumap_number(map, &matrix->scale, column));
}

uint64_t snumap_place(const struct snumap_matrix *matrix, uint64_t row, uint64_t column)
{
    uint64_t at[SNUMAP_RANK] = {0}, place = 0;
    uint32_t i;
    for (i = matrix->row_axes; i-- > 0; row /= matrix->shape[matrix->row_axis[i]])
        at[matrix->row_axis[i]] = row % matrix->shape[matrix->row_axis[i]];
    for (i = matrix->column_axes; i-- > 0; column /= matrix->shape[matrix->column_axis[i]])
        at[matrix->column_axis[i]] = column % matrix->shape[matrix->column_axis[i]];
    for (i = 0; i < matrix->rank; i++) place = place * matrix->shape[i] + at[i];
    return place;
}

int snumap_find(const struct snumap *map, size_t matrix, uint64_t row, uint64_t column,
                struct snumap_address *address)
{
    size_t b;
    for (b = 0; b < map->blocks; b++) {
        const struct snumap_block *const block = map->block + b;
        if (block->matrix == matrix && row >= block->row && row - block->row < block->rows
            && column >= block->column && column - block->column < block->columns) {
            const uint64_t j = column - block->column;
            address->tile = block->tile;
            address->word_line
                = (uint64_t)snumap_number(map, &block->word_lines, row - block->row);
            address->bit_line_plus = (uint64_t)snumap_number(map, &block->bit_lines_plus, j);
            address->bit_line_minus = (uint64_t)snumap_number(map, &block->bit_lines_minus, j);
            return 1;
        }
    }
    return 0;
}

#endif
