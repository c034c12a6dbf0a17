/* Serves the files of its working directory over HTTP: one connection at a time, GET only.
 *
 * The port is that of the variable PORT. `server --check` asks a server on that port for its front page and exits with 0 if it gets one.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static struct sockaddr_in address(in_addr_t host) {
    const char *port = getenv("PORT");
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)atoi(port ? port : "8080"));
    address.sin_addr.s_addr = htonl(host);
    return address;
}

static int check(void) {
    struct sockaddr_in to = address(INADDR_LOOPBACK);
    char answer[16] = "";
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof to) < 0) return 1;
    if (write(s, "GET / HTTP/1.0\r\n\r\n", 18) != 18 || read(s, answer, sizeof answer - 1) < 12) return 1;
    return memcmp(answer + 9, "200", 3) != 0;
}

static void answer(FILE *client, const char *status, FILE *body) {
    char buffer[4096];
    size_t length;
    fprintf(client, "HTTP/1.0 %s\r\nContent-Type: text/html\r\n\r\n", status);
    while (body && (length = fread(buffer, 1, sizeof buffer, body)) > 0) fwrite(buffer, 1, length, client);
}

static void serve(int connection) {
    char line[1024] = "", path[512] = "";
    FILE *client = fdopen(connection, "r+");
    if (!client) {
        close(connection);
        return;
    }
    if (fgets(line, sizeof line, client) && sscanf(line, "GET /%511[^ ?\r\n]", path) <= 0) strcpy(path, "index.html");
    while (fgets(line, sizeof line, client) && line[0] != '\r' && line[0] != '\n') {
    }
    fseek(client, 0, SEEK_CUR);
    FILE *body = strstr(path, "..") ? NULL : fopen(path, "r");
    answer(client, body ? "200 OK" : "404 Not Found", body);
    printf("GET /%s %s\n", path, body ? "200" : "404");
    if (body) fclose(body);
    fclose(client);
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--check") == 0) return check();
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sockaddr_in at = address(INADDR_ANY);
    int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, (struct sockaddr *)&at, sizeof at) < 0 || listen(s, 16) < 0) {
        perror("server");
        return 1;
    }
    printf("listening on port %d\n", ntohs(at.sin_port));
    while (!stopped) {
        int connection = accept(s, NULL, NULL);
        if (connection >= 0) serve(connection);
    }
    printf("stopped\n");
    return 0;
}
