/* Print what a crossbar map holds, in C99 without any library but C's own:
 *
 *     cc -std=c99 -O2 snumap_dump.c -o snumap_dump
 *     ./snumap_dump crossbar.snumap                    names and sizes
 *     ./snumap_dump crossbar.snumap keys/kernel        its weights, in the order of the network
 *     ./snumap_dump crossbar.snumap keys/kernel 0      what to program on plane 0, G+ and G- a line
 *     ./snumap_dump crossbar.snumap keys/kernel 3 7    where the weight of row 3, column 7 sits
 */
#define SNUMAP_IMPLEMENTATION
#include "snumap.h"

static void print_names(const struct snumap *map)
{
    size_t i;
    for (i = 0; i < map->matrices; i++)
        printf("%s: %lu rows, %lu columns on tiles\n", map->matrix[i].name,
               (unsigned long)map->matrix[i].rows, (unsigned long)map->matrix[i].columns);
    for (i = 0; map->planes > 1 && i < map->planes; i++)
        printf("plane %lu: significance %.9g\n", (unsigned long)i, map->significance[i]);
    for (i = 0; i < map->parameters; i++)
        printf("%s: %lu digital numbers\n", map->parameter[i].name,
               (unsigned long)map->parameter[i].values.count);
}

static int print_matrix(const struct snumap *map, const struct snumap_matrix *matrix)
{
    const uint64_t size = matrix->rows * matrix->columns;
    float *const weights = malloc((size_t)size * sizeof *weights);
    uint64_t i, j;
    if (weights == NULL) return 2;
    for (i = 0; i < matrix->rows; i++)
        for (j = 0; j < matrix->columns; j++)
            weights[snumap_place(matrix, i, j)] = snumap_weight(map, matrix, i, j);
    for (i = 0; i < size; i++) printf("%.9g\n", (double)weights[i]);
    free(weights);
    return 0;
}

static int print_address(const struct snumap *map, size_t matrix, const char *row,
                         const char *column)
{
    struct snumap_address found;
    if (!snumap_find(map, matrix, strtoul(row, NULL, 10), strtoul(column, NULL, 10), &found)) {
        fprintf(stderr, "%s has no such row or column\n", map->matrix[matrix].name);
        return 2;
    }
    printf("tile %lu, word line %lu, bit lines %lu and %lu\n", (unsigned long)found.tile,
           (unsigned long)found.word_line, (unsigned long)found.bit_line_plus,
           (unsigned long)found.bit_line_minus);
    return 0;
}

static int print_plane(const struct snumap *map, const struct snumap_matrix *matrix,
                       const char *plane)
{
    const uint64_t size = matrix->rows * matrix->columns, number = strtoul(plane, NULL, 10);
    uint64_t k;
    if (number >= map->planes) {
        fprintf(stderr, "tiles have no such plane\n");
        return 2;
    }
    for (k = number * size; k < (number + 1) * size; k++)
        printf("%.9g %.9g\n", snumap_number(map, &matrix->program_plus, k),
               snumap_number(map, &matrix->program_minus, k));
    return 0;
}

static int print_named(const struct snumap *map, int count, char **given)
{
    size_t i;
    uint64_t k;
    for (i = 0; i < map->matrices; i++) {
        if (strcmp(map->matrix[i].name, given[2]) != 0) continue;
        if (count == 5) return print_address(map, i, given[3], given[4]);
        if (count == 4) return print_plane(map, map->matrix + i, given[3]);
        return print_matrix(map, map->matrix + i);
    }
    for (i = 0; i < map->parameters; i++) {
        if (count > 3 || strcmp(map->parameter[i].name, given[2]) != 0) continue;
        for (k = 0; k < map->parameter[i].values.count; k++)
            printf("%.9g\n", snumap_number(map, &map->parameter[i].values, k));
        return 0;
    }
    fprintf(stderr, "the map has no %s\n", given[2]);
    return 2;
}

int main(int count, char **given)
{
    struct snumap map;
    char error[SNUMAP_ERROR];
    int code = 0;
    if (count < 2 || count > 5) {
        fprintf(stderr, "usage: snumap_dump MAP [NAME [PLANE | ROW COLUMN]]\n");
        return 2;
    }
    if (!snumap_read(&map, given[1], error)) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    if (count == 2) print_names(&map);
    else code = print_named(&map, count, given);
    snumap_free(&map);
    return code;
}
